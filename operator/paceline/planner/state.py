"""What the planner remembers from one decision to the next: small, explicit, serialisable.

Handed in and out of `Planner.decide`; a caller that loses it loses history, never safety.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.planner.observation import Lengths, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What one look would have chosen with no regard to calm."""

    at_s: float
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerState:
    version: int = 1
    last_safe: Shape | None = None
    """The last shape that was chosen from fresh figures."""
    recommendations: tuple[Recommendation, ...] = ()
    """Of the stabilization window, oldest first."""
    prompt: Lengths | None = None
    output: Lengths | None = None
    """The last mix that was known."""
    cached_prompt_share: float = 0.0
    size_changed_at_s: float | None = None
    """When the tensor-parallel size was last decided anew."""
