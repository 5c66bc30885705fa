"""What a load sends, and the bounds of every load. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_DURATION_S: Final = 3600.0
MAX_REQUESTS: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One request of a schedule."""

    at_s: float
    """After the start of the load."""
    prompt: str
    max_tokens: int
