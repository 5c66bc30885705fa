"""A dial of a policy: what tuning may turn, and where it stands as shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Settings = Mapping[str, float]
"""Where each dial of a policy stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    name: str
    ladder: tuple[float, ...]
    """From the fewest GPUs to the most, where the dial has such a direction."""
    default: float
    """As shipped; it may lie between two rungs."""
