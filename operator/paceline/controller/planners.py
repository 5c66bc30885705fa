"""Which planner decides for a service."""

from __future__ import annotations

from typing import Protocol

from paceline.fleet import Observed
from paceline.planner import Decision, Observation, PlannerState


class SizedPlanner(Protocol):
    """A planner, and the tensor-parallel sizes that its timing knows."""

    @property
    def sizes(self) -> tuple[int, ...]: ...

    def decide(self, observation: Observation, state: PlannerState) -> Decision: ...


class Planners:
    def of(self, observed: Observed) -> SizedPlanner | None:
        return None
