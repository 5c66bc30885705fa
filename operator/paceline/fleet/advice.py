"""What the decision loop found at its last look, as the fleet needs it; made by the controller, once a period.

The fleet knows neither Prometheus nor the planner: this is all that reaches it of both. An advice is about the
shape that it `seen`: it is followed only while that is still the shape asked for, so an old one cannot undo
what came after it. A lost one costs a period.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.api import BurnRate, ConditionStatus, Shape
from paceline.fleet.straggler import Straggler

ADVICE_VALID_S = 60.0
"""An advice is made every period (15 s). One that is older than a few of them comes from a loop that hangs."""

METRICS_UNKNOWN = "MetricsUnknown"
"""The planner's word for a decision without figures: it holds, and nobody may act on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsWord:
    """What the condition MetricsAvailable says."""

    usable: bool
    """Whether the figures may be acted on. They may while Prometheus is away and pods were asked directly."""

    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures for people. None: not measured, or not to be trusted."""

    attainment: float | None = None
    """Share of the requests of the window that met all targets, 0 to 1."""

    samples: int | None = None
    budget_remaining: float | None = None
    burn_rates: tuple[BurnRate, ...] = ()
    time_to_first_token_s: float | None = None
    time_per_output_token_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The planner's decision, without its candidates."""

    seen: Shape
    """The shape that was asked for when it was made."""

    shape: Shape
    reason: str
    message: str
    limit: str | None
    feasible: bool | None
    predicted_attainment: float | None
    in_place: bool = False
    """To another tensor-parallel size within the pods that serve: there is no room beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    made_at_s: float
    generation: int
    """Of the spec that it was made for."""

    metrics: MetricsWord
    measured: Measured = Measured()
    choice: Choice | None = None
    """None where nothing decides: Manual, paused, or a hindrance."""

    hindrance: str | None = None
    """Why the planner cannot decide anything, or why a service at zero cannot be woken, and the way out."""

    kept_awake: str | None = None
    """Why a service that has been idle for long enough does not go to zero, and the way out."""

    straggler: Straggler | None = None
    """The pod that has been much slower than its peers for long enough."""

    def is_valid(self, *, generation: int, now_s: float) -> bool:
        """Neither old nor made for another spec."""
        return self.generation == generation and now_s - self.made_at_s <= ADVICE_VALID_S
