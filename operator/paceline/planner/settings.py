"""The planner's own knobs: each with its unit, its default and the reason for the default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    miss_allowance: float = 0.5
    """Share of the error budget (1 − objective) that a shape may be expected to use before replicas are added.
    The rest is for what no model sees: failed pods, a burst inside the start time."""
    down_miss_allowance: float = 0.3
    """The same for a smaller shape to be taken: less, so that it does not come back at once."""
    budget_use: float = 0.95
    """Share of the error budget that is to be spent in the long run: what is not is paid for in GPUs that no user notices.
    Failures that no replica helps against are counted among the misses, and lower the allowance as those do."""
    pace_gain: float = 0.025
    """How fast the allowance follows the budget: a window without a miss raises it by this share."""
    pace_most: float = 8.0
    """The allowance is raised to at most this multiple…"""
    pace_least: float = 0.33
    """…and lowered to at least this: the last misses are the dearest to avoid."""
    demand_sigmas: float = 1.0
    """Width of the demand that capacity is made for, in units of the forecast's own error."""
    start_time_default_s: float = 180.0
    """Look-ahead before this service has started once: the image on the node, the weights in a page cache."""
    start_time_least_s: float = 30.0
    """Scrapes and looks take this long even where pods start at once."""
    recovery_s: float = 120.0
    """Time within which a backlog is to be worked off."""
    blind_forecast_s: float = 600.0
    """How long the last forecast may still raise the shape when the rate is unknown."""
    size_saving_least: float = 0.08
    """A change of size must save this share of the GPUs: less is within the error of the tables."""
    size_saving_untried: float = 0.15
    """The same for a size that was never measured here."""
    size_evidence_s: float = 600.0
    """How long the saving must have been seen."""
    size_stay_s: float = 14400.0
    """Expected stay at a new size: mixes shift a few times a day."""
    size_gain_least: float = 0.02
    """Under a limit, a size is changed for at least this gain in attainment."""
    flap_s: float = 600.0
    """Replicas that come back this soon after some were taken away are a reversal."""
    flap_memory_s: float = 3600.0
    """How long a reversal widens the band."""
    max_candidates: int = 64
    """Shapes listed in one decision."""
