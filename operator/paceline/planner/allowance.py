"""The misses that a shape may be expected to have: a share of what the floor of its size leaves of the error budget."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.planner.ladder import Ladder
from paceline.planner.settings import PlannerSettings
from paceline.planner.state import PlannerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Shares of the requests; negative where the floor alone misses the objective."""

    budget: float
    """1 − objective."""
    pace: float
    """How many times the usual share may be used, as the budget stands (`pacing`)."""
    settings: PlannerSettings

    @classmethod
    def of(cls, state: PlannerState, *, objective: float, settings: PlannerSettings) -> Allowance:
        pace = state.pace.factor if state.pace is not None else 1.0
        return cls(budget=1 - objective, pace=pace, settings=settings)

    def now(self, one: Ladder) -> float:
        """Before replicas are added."""
        return self._of(one, self.settings.miss_allowance * self.pace)

    def new(self, one: Ladder, *, factor: float = 1.0) -> float:
        """Of a shape that is not there yet."""
        return self._of(one, self.settings.down_miss_allowance * factor * self.pace)

    def lasting(self, one: Ladder) -> float:
        """Of a size that is to stay: what was saved up of the budget does not last that long."""
        return self._of(one, self.settings.miss_allowance * min(self.pace, 1.0))

    def _of(self, one: Ladder, share: float) -> float:
        left = self.budget - one.floor_miss
        return one.floor_miss + share * left if left > 0 else -1.0
