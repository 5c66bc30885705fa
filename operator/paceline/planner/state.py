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
class Blend:
    """A mix of lengths."""

    prompt: Lengths
    output: Lengths
    cached_prompt_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthsMemory:
    """Windows of one length, the last ones apart: together they show a shift that each of them is too small for."""

    older: Lengths
    """Added up, and forgotten slowly."""
    lately: tuple[Lengths, ...] = ()
    """Oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixMemory:
    """The mix, added up over looks."""

    prompt: LengthsMemory
    output: LengthsMemory
    cached_prompt_share: float
    at_s: float
    used: Blend
    """What predictions are made for: it follows the memory in steps that matter."""
    used_at_s: float
    shifted_at_s: float
    """When the mix last differed from the memory by more than its noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed:
    """The rate, smoothed once and twice with one time constant."""

    once: float
    twice: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PastForecast:
    """What each expert said at a time of the rate one look-ahead later."""

    at_s: float
    look_ahead_s: float
    rates: tuple[float, ...]
    plain: float
    """What was said without yesterday's curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """Looks close to each other in which far more came than was said."""

    since_s: float
    until_s: float
    ratio: float
    """The most that came over what was said."""
    level_per_s: float
    """The highest rate."""
    requests: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpMemory:
    requests: float = 0.0
    """In all, forgotten over a day as those of the jumps are."""
    jumps: tuple[Jump, ...] = ()
    """Oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastMemory:
    at_s: float
    smoothed: tuple[Smoothed, ...]
    """One a time constant."""
    squares: tuple[float, ...]
    """Mean square of each expert's logarithmic error, one an expert."""
    under_squares: tuple[float, ...]
    """The same over the errors with more traffic than was said; 0 stands for the others."""
    weight: float
    """How many errors these means rest on."""
    plain_square: float
    """Mean square of the error over the last day, without yesterday's curve…"""
    raised_square: float
    """…and with it as a floor."""
    pending: tuple[PastForecast, ...]
    """Not yet compared, oldest first."""
    rate: float
    """The last one."""
    profile: tuple[float, ...]
    """Rate by time of day up to yesterday, one a slot; negative where no day was seen yet."""
    today: tuple[float, ...]
    """The same of the day under way."""
    jumps: JumpMemory = JumpMemory()
    """A state that was kept before they were counted has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What is known of κ at one tensor-parallel size: the logarithm of the correction, and its variance."""

    tensor_parallel_size: int
    mean: float
    variance: float
    measurements: int
    outliers: int
    """In a row, on one side: an odd figure is left out, a lasting shift is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoreboard:
    """Observed misses against predicted ones, decaying."""

    requests: float
    observed: float
    predicted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How the error budget is being spent."""

    factor: float
    """Of the misses that a shape may be expected to have."""
    requests_per_window: float
    counted_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeNeed:
    """GPUs that the service would have needed at one tensor-parallel size, averaged over the last while."""

    tensor_parallel_size: int
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerState:
    version: int = 2
    last_safe: Shape | None = None
    """The last shape that was chosen from fresh figures."""
    recommendations: tuple[Recommendation, ...] = ()
    """Those that can still be the most of a stabilization window, oldest first."""
    looks_since_s: float | None = None
    """Since when they were taken, at the present size."""
    mix: MixMemory | None = None
    forecast: ForecastMemory | None = None
    calibrations: tuple[Calibration, ...] = ()
    scoreboard: Scoreboard | None = None
    capacity_factor: float = 1.0
    """Capacity as experienced over capacity as predicted: below 1 the model was too hopeful."""
    pace: Pace | None = None
    size_needs: tuple[SizeNeed, ...] = ()
    size_needs_since_s: float | None = None
    size_changed_at_s: float | None = None
    """When the tensor-parallel size was last decided anew."""
    lowered_at_s: tuple[float, ...] = ()
    """When replicas were taken away lately."""
    reversed_at_s: tuple[float, ...] = ()
    """When replicas were added soon after some had been taken away."""
    settled_since_s: float | None = None
    """Since when all that is told to run has been Ready; None: something starts, drains or changes."""
    looked_at_s: float | None = None
    learned_at_s: float | None = None
    safe_rate_per_replica: float | None = None
    """Without a timing table: the highest rate of one replica at which the objective was met."""
