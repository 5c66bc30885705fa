"""What the planner remembers from one decision to the next: small, explicit, serialisable.

Handed in and out of `Planner.decide`; a caller that loses it loses history, never safety.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerState:
    version: int = 1
