"""Puts a choice into words: every candidate with why it lost, the runner-up, and what would change the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from paceline.planner.choice import Choice
from paceline.planner.decision import Candidate
from paceline.planner.demand import Demand
from paceline.planner.ladder import Ladder
from paceline.planner.observation import Observation, Shape
from paceline.planner.settings import PlannerSettings
from paceline.planner.size_change import dwelt
from paceline.planner.state import PlannerState
from paceline.planner.surface import Surface

_GROWTH: Final = np.array([1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0])
"""Multiples of the demand that are tried for the sentence about more traffic."""


def candidates_of(
    choice: Choice,
    ladders: Sequence[Ladder],
    *,
    observation: Observation,
    state: PlannerState,
    settings: PlannerSettings,
) -> tuple[Candidate, ...]:
    """Those next to the answer, at every size; the best first, and the chosen one before all.

    Where not even one of each size may be listed, those of the chosen size alone.
    """
    listed = ladders if settings.max_candidates >= len(ladders) else (choice.ladder,)
    count = max(settings.max_candidates // len(listed), 1)
    found: list[Candidate] = []
    for one in listed:
        mine = one.size == choice.shape.tensor_parallel_size
        needed = one.least(choice.allowed_miss if mine else _allowed_at(choice, one, observation))
        around = choice.shape.replicas if mine else needed or one.most
        indices = one.shown(around, count=count)
        for index, prediction in zip(indices.tolist(), one.predictions(indices), strict=True):
            shape = one.shape(index)
            rejected = None
            if shape != choice.shape:
                rejected = _rejected(
                    one, index, needed, choice, mine=mine, observation=observation, state=state
                )
            found.append(Candidate(shape=shape, gpus=shape.gpus, prediction=prediction, rejected=rejected))
    objective = observation.goal.objective
    return tuple(sorted(found, key=lambda one: _order(one, objective)))


def _order(one: Candidate, objective: float) -> tuple[bool, bool, float, float]:
    good = one.prediction.attainment
    enough = good >= objective
    return one.rejected is not None, not enough, one.gpus if enough else -good, -good


def runner_up_of(candidates: Sequence[Candidate], *, objective: float) -> Shape | None:
    """The cheapest of the others that meets the objective; else the one that comes nearest."""
    others = [one for one in candidates if one.rejected is not None]
    return min(others, key=lambda one: _order(one, objective)).shape if others else None


def would_change(
    choice: Choice,
    *,
    observation: Observation,
    state: PlannerState,
    demand: Demand,
    denied: Mapping[int, Surface],
    ruled_out: Sequence[str],
) -> tuple[str, ...]:
    """`denied` are sizes whose timing is known but that the spec does not allow; `ruled_out` says why others cannot be
    come to."""
    said = []
    one, replicas = choice.ladder, choice.shape.replicas
    rates = demand.rates[:, None] * _GROWTH / one.capacity_factor / replicas
    miss = demand.weights @ one.surface.miss(rates, replicas=replicas)
    over = np.flatnonzero(miss > choice.allowed_miss)
    if over.size and choice.allowed_miss >= 0 and miss.size:
        rate = demand.planned_per_s * float(_GROWTH[over[0]])
        said.append(f"above about {rate:.3g} requests/s: more than {replicas} replicas")
    if choice.proven.replicas < replicas:
        said.append(f"as quiet as now for longer: {choice.proven.replicas} replicas")
    if not dwelt(observation, state) and state.size_changed_at_s is not None:
        left_s = state.size_changed_at_s + observation.goal.min_dwell_s - observation.now_s
        said.append(f"in {left_s / 60:.0f} min another tensor-parallel size may be chosen")
    if choice.limit not in ("None", "MinReplicas", "TensorParallelSizes"):
        said.append(f"more room ({choice.limit}) than {one.room.most} replicas of TP{one.size}")
    if not choice.feasible:
        said.extend(ruled_out)
        for size, surface in sorted(denied.items()):
            if 1 - surface.floor_attainment < 1 - observation.goal.objective:
                said.append(
                    f"TP{size}, if it were allowed: one request alone meets its targets in "
                    f"{surface.floor_attainment:.2%} of all cases"
                )
        said.append("other targets, a smaller format of the weights, or a faster GPU")
    return tuple(said)


def _allowed_at(choice: Choice, one: Ladder, observation: Observation) -> float:
    """The misses allowed to the choice, for a size with another floor."""
    budget = 1 - observation.goal.objective
    mine = choice.ladder.floor_miss
    share = (choice.allowed_miss - mine) / (budget - mine) if budget > mine else 0.5
    return one.floor_miss + share * (budget - one.floor_miss) if budget > one.floor_miss else -1.0


def _rejected(
    one: Ladder,
    index: int,
    needed: int | None,
    choice: Choice,
    *,
    mine: bool,
    observation: Observation,
    state: PlannerState,
) -> str:
    replicas = int(one.replicas[index])
    budget, floor = 1 - observation.goal.objective, one.floor_miss
    if floor >= budget:
        return f"one request alone misses in {floor:.1%} of all cases: {budget:.1%} are allowed"
    if replicas > one.room.most and replicas not in one.switches:
        return f"only {one.room.most} fit ({one.room.limit})"
    if needed is None or replicas < needed:
        return f"{float(one.miss[index]):.2%} of requests would miss: too near to the {budget:.2%} that are allowed"
    gpus, chosen = one.size * replicas, choice.shape.gpus
    if gpus > chosen or mine:
        return f"{gpus} GPUs are more than the {chosen} that do"
    if observation.changing:
        return "a change of size is under way"
    if not dwelt(observation, state):
        return "the size was changed too short a time ago"
    if gpus == chosen:
        return "it costs the same, and a change of size is not free"
    return f"saves {chosen - gpus} GPUs, not for long or not surely enough to pay for a change of size"
