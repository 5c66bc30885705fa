"""From an autoscaler to the shape of a service: fixed shapes, rivals of one size, plans, and Paceline's planner."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import replace

from paceline.planner import Goal, Planner, PlannerState, Shape
from paceline.planner.settings import PlannerSettings
from paceline.simulator.core.scrapes import Scrapes
from paceline.simulator.core.world import World
from paceline.simulator.policies.around import OperatorSight
from paceline.simulator.policies.seen import ScrapedSight
from paceline.simulator.policies.sight import Rival
from paceline.simulator.simulation import Policy
from paceline_core.timing import StepTiming

PLANNER_PERIOD_S = 15.0


class Still:
    """One shape for ever."""

    period_s = 3600.0
    reads_scrapes = False

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        return self._shape


class OneSize:
    """A rival: replicas of the size that was chosen before deployment."""

    reads_scrapes = True

    def __init__(self, rival: Rival, *, size: int, max_gpus: int) -> None:
        self.period_s = rival.period_s
        self._rival = rival
        self._size = size
        self._most = max_gpus // size

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        replicas = self._rival.replicas(ScrapedSight(world=world, scrapes=scrapes))
        return Shape(tensor_parallel_size=self._size, replicas=min(max(replicas, 1), self._most))


class Planned:
    """A plan that was made with the traffic known: the oracle's certificate."""

    period_s = 5.0
    reads_scrapes = False

    def __init__(self, steps: Sequence[tuple[float, Shape]]) -> None:
        self._at = [at_s for at_s, _ in steps]
        self._shapes = [shape for _, shape in steps]

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        return self._shapes[max(bisect.bisect_right(self._at, world.now_s) - 1, 0)]


class Paceline:
    """The planner as the controller runs it."""

    period_s = PLANNER_PERIOD_S
    reads_scrapes = True

    def __init__(
        self,
        *,
        timing: Mapping[int, StepTiming],
        settings: PlannerSettings | None = None,
        sizes: tuple[int, ...] | None = None,
        objective: float | None = None,
    ) -> None:
        """`timing`: the prior. `sizes`: fewer than the service allows. `objective`: another than the service's."""
        # A shape is all that is asked for here: the other candidates are not put into words.
        settings = replace(settings or PlannerSettings(), max_candidates=1)
        self._planner = Planner(timing=timing, settings=settings)
        self._sizes = sizes
        self._objective = objective
        self._sight = OperatorSight()
        self._state: PlannerState | None = None

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        if self._sizes is not None:
            goal = replace(goal, allowed_tensor_parallel_sizes=self._sizes)
        if self._objective is not None:
            goal = replace(goal, objective=self._objective)
        decision = self._planner.decide(self._sight.look(world, scrapes, goal=goal), self._state)
        self._state = decision.state
        return decision.shape


class Kept:
    """A policy that may not leave a size for a while: what its change of the size was worth."""

    reads_scrapes = True

    def __init__(self, policy: Policy, *, size: int, from_s: float, until_s: float) -> None:
        self.period_s = policy.period_s
        self._policy = policy
        self._size = size
        self._from_s, self._until_s = from_s, until_s

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        if self._from_s <= world.now_s < self._until_s:
            goal = replace(goal, allowed_tensor_parallel_sizes=(self._size,))
        return self._policy.shape(world, scrapes, goal)
