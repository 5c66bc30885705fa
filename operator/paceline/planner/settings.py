"""The planner's own knobs: each with its unit, its default and the reason for the default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    miss_allowance: float = 0.5
    """Share of the objective's error budget that a shape may be predicted to use. Half: the other half is for
    what no model sees (failed pods, a burst inside the start time)."""
    down_miss_allowance: float = 0.35
    """The same for a shape that is smaller than the current one: less, so that it does not come back."""
    demand_sigmas: float = 1.0
    """Normal score of the demand that capacity is made for, over the forecast's own error."""
    start_time_default_s: float = 180.0
    """Look-ahead before this service has started once: an image on the node and weights in a page cache."""
    start_time_floor_s: float = 30.0
    recovery_s: float = 120.0
    """Time within which a backlog is to be worked off."""
    max_candidates: int = 64
    """Shapes weighed in one decision."""
