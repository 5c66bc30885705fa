"""The optimum against brute force on problems small enough to try every schedule."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from paceline.planner import Shape
from paceline.simulator.oracle.levels import cheapest_fleet, exact_plan, lower_convex_hull
from paceline.simulator.oracle.linear_programme import lower_bound
from paceline.simulator.oracle.problem import NoPlan, Problem
from paceline.simulator.oracle.schedule import shortest_plan


def _shapes(*pairs: tuple[int, int]) -> tuple[Shape, ...]:
    return tuple(Shape(tensor_parallel_size=size, replicas=n) for size, n in pairs)


def _problem(
    seed: int, *, slots: int, pairs: tuple[tuple[int, int], ...], budget: float, max_gpus: int | None = None
) -> Problem:
    """Misses that fall with the replicas, ever more slowly."""
    random = np.random.default_rng(seed)
    requests = random.integers(5, 60, size=slots).astype(float)
    shapes = _shapes(*pairs)
    speed = np.array([shape.gpus ** random.uniform(0.8, 1.1) for shape in shapes])
    misses = requests[:, None] * np.exp(-speed[None, :] * random.uniform(4, 30) / requests[:, None])
    return Problem(
        slot_s=60.0,
        shapes=shapes,
        misses=misses,
        requests=requests,
        start_s=float(random.choice([30.0, 60.0, 90.0, 150.0])),
        max_misses=budget * float(requests.sum()),
        max_gpus=max_gpus,
    )


def _feasible(problem: Problem) -> Problem:
    """The same with a budget that counts from the fewest misses possible."""
    fewest = float(problem.misses.min(axis=1).sum())
    return replace(problem, max_misses=fewest + problem.max_misses)


def _cost(problem: Problem, path: tuple[int, ...]) -> tuple[float, float]:
    """GPU-hours and misses of a path; index 0 is nothing. One size at a time."""
    shapes = [None, *problem.shapes]
    gpu_s, missed, before = 0.0, 0.0, None
    for t, index in enumerate(path):
        shape = shapes[index]
        missed += problem.requests[t] if shape is None else problem.misses[t, index - 1]
        if shape is not None:
            gpu_s += shape.gpus * problem.slot_s
            kept = (
                min(before.replicas, shape.replicas)
                if before is not None and before.tensor_parallel_size == shape.tensor_parallel_size
                else 0
            )
            starting = (shape.replicas - kept) * shape.tensor_parallel_size
            held = before.gpus if before is not None else 0
            if t and problem.max_gpus is not None and starting and held + starting > problem.max_gpus:
                return math.inf, math.inf
            if problem.max_gpus is not None and shape.gpus > problem.max_gpus:
                return math.inf, math.inf
            gpu_s += starting * problem.start_s if t else 0.0
        before = shape
    return gpu_s / 3600, missed


def _brute_force(problem: Problem) -> float:
    costs = (
        _cost(problem, path)
        for path in itertools.product(range(len(problem.shapes) + 1), repeat=problem.slots)
    )
    return min((cost for cost, missed in costs if missed <= problem.max_misses + 1e-9), default=math.inf)


@pytest.mark.parametrize("seed", range(40))
def test_the_cheapest_fleet_is_the_best_of_all_schedules(seed: int) -> None:
    random = np.random.default_rng(seed)
    need = random.integers(0, 4, size=6).tolist()
    start_s = float(random.choice([0.0, 50.0, 60.0, 130.0, 500.0]))
    fleet, replica_s = cheapest_fleet(need, slot_s=60.0, start_s=start_s)
    best = min(
        60.0 * sum(plan) + start_s * sum(max(b - a, 0) for a, b in itertools.pairwise(plan))
        for plan in itertools.product(range(4), repeat=6)
        if all(n >= least for n, least in zip(plan, need, strict=True))
    )
    assert replica_s == pytest.approx(best)
    assert all(n >= least for n, least in zip(fleet, need, strict=True))
    paid = 60.0 * sum(fleet) + start_s * sum(max(b - a, 0) for a, b in itertools.pairwise(fleet))
    assert paid == pytest.approx(best)


@pytest.mark.parametrize("budget", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(12))
def test_levels_enclose_the_best_of_all_schedules_of_one_size(seed: int, budget: float) -> None:
    problem = _problem(seed, slots=5, pairs=((2, 1), (2, 2), (2, 3)), budget=budget)
    best = _brute_force(problem)
    if math.isinf(best):
        with pytest.raises(NoPlan):
            exact_plan(problem)
        return
    plan = exact_plan(problem)
    assert plan.misses <= problem.max_misses + 1e-6
    assert plan.bound_gpu_hours <= best + 1e-9
    assert best <= plan.gpu_hours + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_levels_are_exact_at_every_price_that_the_budget_can_have(seed: int) -> None:
    """A budget that some price meets to the request: no gap between bound and plan."""
    problem = _feasible(_problem(seed, slots=5, pairs=((1, 1), (1, 2), (1, 3)), budget=0.2))
    loose = exact_plan(problem)
    exact = replace(problem, max_misses=loose.misses)
    plan = exact_plan(exact)
    assert plan.gpu_hours == pytest.approx(_brute_force(exact))
    assert plan.bound_gpu_hours == pytest.approx(plan.gpu_hours, rel=1e-6)


@pytest.mark.parametrize("max_gpus", [None, 4, 3])
@pytest.mark.parametrize("seed", range(12))
def test_programme_and_path_enclose_the_best_of_all_schedules_of_several_sizes(
    seed: int, max_gpus: int | None
) -> None:
    problem = _problem(
        seed, slots=4, pairs=((1, 1), (1, 2), (1, 3), (2, 1), (2, 2)), budget=0.1, max_gpus=max_gpus
    )
    best = _brute_force(problem)
    try:
        bound = lower_bound(problem).gpu_hours
    except NoPlan:
        assert math.isinf(best)
        return
    assert bound <= best + 1e-9
    if math.isinf(best):
        return
    plan = shortest_plan(problem)
    assert plan.bound_gpu_hours <= best + 1e-9
    assert best <= plan.gpu_hours + 1e-9
    assert plan.misses <= problem.max_misses + 1e-6
    assert bound <= plan.gpu_hours + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_the_programme_is_not_far_below_what_can_be_had(seed: int) -> None:
    """With many slots a fraction of a replica is worth little: a bound that lets anything through would fail."""
    problem = _feasible(_problem(seed, slots=60, pairs=tuple((1, n) for n in range(1, 13)), budget=0.02))
    bound, plan = lower_bound(problem).gpu_hours, exact_plan(problem)
    assert bound <= plan.gpu_hours + 1e-9
    assert bound >= 0.9 * plan.bound_gpu_hours


def test_a_cap_below_all_needs_has_no_plan() -> None:
    problem = _problem(0, slots=4, pairs=((1, 1), (1, 2), (1, 3)), budget=0.0, max_gpus=1)
    with pytest.raises(NoPlan, match="raise max GPUs"):
        lower_bound(problem)


def test_the_hull_is_convex_and_touches_from_below() -> None:
    values = np.array([10.0, 10.0, 1.0, 0.9, 0.0])
    hull = lower_convex_hull(values)
    assert np.all(hull <= values + 1e-12)
    assert np.all(np.diff(np.diff(hull)) >= -1e-12)
    assert hull[0] == 10.0
    assert hull[2] == 1.0
