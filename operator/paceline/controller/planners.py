"""One planner for each service, with the timing of its model; kept for as long as that timing is the same.

A planner keeps tables that are dear to make and change no answer, so making one anew is always allowed. What depends
on spec, facts and nodes alone is looked up again when one of these is another: with a thousand services on a thousand
nodes, every service would else go through every node at every look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from paceline.api import InferenceService
from paceline.controller import planning
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Node, Observed
from paceline.fleet.timing_prior import TimingPrior, timing_prior
from paceline.planner import Decision, Observation, Planner, PlannerState
from paceline_core import CheckpointFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedPlanner:
    """A planner, and the tensor-parallel sizes that it may choose."""

    planner: Planner
    prior: TimingPrior
    sizes: tuple[int, ...]

    def decide(self, observation: Observation, state: PlannerState) -> Decision:
        return self.planner.decide(observation, state)


@dataclass(frozen=True, slots=True)
class _Known:
    """What was looked up, and what for."""

    service: InferenceService
    nodes: tuple[Node, ...]
    facts: CheckpointFacts | None
    planner: SizedPlanner | None

    def is_about(self, observed: Observed) -> bool:
        """By identity: the cache hands out the same objects until they change."""
        return (
            self.service is observed.service and self.nodes is observed.nodes and self.facts == observed.facts
        )


class Planners:
    def __init__(self) -> None:
        self._known: dict[ServiceKey, _Known] = {}

    def of(self, key: ServiceKey, observed: Observed) -> SizedPlanner | None:
        """None where no timing of the model is known."""
        known = self._known.get(key)
        if known is None or not known.is_about(observed):
            planner = _planner(observed, before=known.planner if known is not None else None)
            known = self._known[key] = _Known(observed.service, observed.nodes, observed.facts, planner)
        return known.planner

    def forget(self, key: ServiceKey) -> None:
        self._known.pop(key, None)


def _planner(observed: Observed, *, before: SizedPlanner | None) -> SizedPlanner | None:
    prior = timing_prior(observed)
    if prior is None:
        return None
    sizes = planning.possible_sizes(observed, timed=prior.timing)
    if before is not None and before.prior == prior:
        return before if before.sizes == sizes else replace(before, sizes=sizes)
    return SizedPlanner(planner=Planner(timing=prior.timing), prior=prior, sizes=sizes)
