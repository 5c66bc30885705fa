"""A plan with several tensor-parallel sizes that a simulator can replay: the optimum's certificate.

One size serves at a time; a change brings the new shape up beside the old one. A shortest path over (slot,
shape) for a price of a miss; the price is found by bisection. Upper end of what the linear programme bounds
from below.
"""

from __future__ import annotations

import itertools

import numpy as np

from paceline.planner import Shape
from paceline.simulator.oracle.problem import Floats, NoPlan, Plan, Problem

PRICE_STEPS = 40
NOTHING = 0
"""Index of the shape of no replicas in the tables below; `shapes[i]` is index i + 1."""


def shortest_plan(problem: Problem) -> Plan:
    """The cheapest path within the budget of misses that a price can find; raises NoPlan when there is none."""
    shapes: list[Shape | None] = [None, *problem.shapes]
    misses = np.column_stack([problem.requests, problem.misses])
    gpus = np.array([shape.gpus if shape else 0 for shape in shapes], dtype=float)
    change = _change_costs(shapes, start_s=problem.start_s, max_gpus=problem.max_gpus)
    if problem.max_gpus is not None:
        over = gpus > problem.max_gpus
        misses = np.where(over[None, :], np.inf, misses)
    fewest = float(misses.min(axis=1).sum())
    if fewest > problem.max_misses + 1e-9:
        raise NoPlan(fewest, problem.max_misses)
    slot_cost = gpus * problem.slot_s
    low, high = 0.0, 1e6 * float(gpus.max()) * (problem.slot_s + problem.start_s)
    best = _path(misses, slot_cost, change, price=high)
    if best[2] > problem.max_misses + 1e-9:
        raise NoPlan(best[2], problem.max_misses)
    bound = 0.0
    for _ in range(PRICE_STEPS):
        price = (low + high) / 2
        path, cost, missed = _path(misses, slot_cost, change, price=price)
        bound = max(bound, cost + price * (missed - problem.max_misses))
        if missed <= problem.max_misses + 1e-9:
            high = price
            if cost <= best[1]:
                best = (path, cost, missed)
        else:
            low = price
    path, cost, missed = best
    return Plan(
        shapes=tuple(shapes[i] for i in path),
        gpu_hours=problem.gpu_hours(cost),
        misses=missed,
        bound_gpu_hours=problem.gpu_hours(max(min(bound, cost), 0.0)),
    )


def _change_costs(shapes: list[Shape | None], *, start_s: float, max_gpus: int | None) -> Floats:
    """(from, to): GPU-seconds of the starts; infinite where both together are more GPUs than there are."""
    cost = np.zeros((len(shapes), len(shapes)))
    for i, old in enumerate(shapes):
        for j, new in enumerate(shapes):
            if new is None or i == j:
                continue
            same = old is not None and old.tensor_parallel_size == new.tensor_parallel_size
            kept = min(old.replicas, new.replicas) if same and old is not None else 0
            starting = (new.replicas - kept) * new.tensor_parallel_size
            cost[i, j] = starting * start_s
            held = old.gpus if old is not None else 0
            if max_gpus is not None and held + starting > max_gpus and starting > 0:
                cost[i, j] = np.inf
    return cost


def _path(
    misses: Floats, slot_cost: Floats, change: Floats, *, price: float
) -> tuple[list[int], float, float]:
    slots, states = misses.shape
    here = price * misses + slot_cost
    best = here[0].copy()
    came_from = np.zeros((slots, states), dtype=np.int64)
    for t in range(1, slots):
        through = best[:, None] + change
        came_from[t] = through.argmin(axis=0)
        best = through.min(axis=0) + here[t]
    path = [int(best.argmin())]
    for t in range(slots - 1, 0, -1):
        path.append(int(came_from[t, path[-1]]))
    path.reverse()
    steps = itertools.pairwise(path)
    cost = float(slot_cost[path].sum()) + sum(float(change[a, b]) for a, b in steps)
    return path, cost, float(misses[np.arange(slots), path].sum())
