"""One planner for each service, with the timing of its model; kept for as long as that timing is the same.

A planner keeps tables that are dear to make and change no answer, so making one anew is always allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.controller.timing_prior import TimingPrior, timing_prior
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Observed
from paceline.planner import Decision, Observation, Planner, PlannerState


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedPlanner:
    """A planner, and the tensor-parallel sizes that its timing knows."""

    planner: Planner
    prior: TimingPrior

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(sorted(self.prior.timing))

    def decide(self, observation: Observation, state: PlannerState) -> Decision:
        return self.planner.decide(observation, state)


class Planners:
    def __init__(self) -> None:
        self._planners: dict[ServiceKey, SizedPlanner] = {}

    def of(self, key: ServiceKey, observed: Observed) -> SizedPlanner | None:
        """None where no timing of the model is known."""
        prior = timing_prior(observed)
        if prior is None:
            self._planners.pop(key, None)
            return None
        known = self._planners.get(key)
        if known is None or known.prior != prior:
            known = self._planners[key] = SizedPlanner(planner=Planner(timing=prior.timing), prior=prior)
        return known

    def forget(self, key: ServiceKey) -> None:
        self._planners.pop(key, None)
