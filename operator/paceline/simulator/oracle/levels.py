"""The optimum with one tensor-parallel size, exactly: replica by replica.

The k-th replica is a level. Which slots it is on is a question of its own: on costs GPUs, off costs the requests
that k replicas would have saved over k − 1, switching on costs a start. With misses that fall ever more slowly
from level to level (convex), a level is never on while the one below is off, so that levels solved one by one
are a fleet, and their sum is the optimum.
"""

from __future__ import annotations

import numpy as np

from paceline.planner import Shape
from paceline.simulator.oracle.problem import Flags, Floats, NoPlan, Plan, Problem

PRICE_STEPS = 60
"""Bisection steps for the price of a miss: exact to the last float for any count of requests."""


def cheapest_fleet(need: list[int], *, slot_s: float, start_s: float) -> tuple[list[int], float]:
    """Replicas for each slot, never fewer than `need`, at the fewest replica-seconds; and these.

    Between two needs a level either stays on for the gap or ends and starts again, whichever is cheaper. So
    does a level that is first needed later: it is there from the beginning, or starts in time.
    """
    fleet = list(need)
    total_s = 0.0
    for level in range(1, max(need, default=0) + 1):
        on = [t for t, n in enumerate(need) if n >= level]
        total_s += len(on) * slot_s
        last = -1
        for t in on:
            gap_s = (t - last - 1) * slot_s
            if gap_s > 0:
                total_s += min(gap_s, start_s)
                if gap_s <= start_s:
                    for between in range(last + 1, t):
                        fleet[between] = max(fleet[between], level)
            last = t
    return fleet, total_s


def exact_plan(problem: Problem) -> Plan:
    """The optimum for a problem of one tensor-parallel size.

    The budget of misses enters as a price of a miss, found by bisection. For each price the answer is exact;
    `bound_gpu_hours` is the highest of the dual values, and the plan is the cheapest found that keeps the
    budget. The two differ by what the last request's price cannot split.
    """
    (size,) = problem.tensor_parallel_sizes
    saved = _savings(problem)
    fewest = float(problem.requests.sum() - saved.sum())
    if fewest > problem.max_misses + 1e-9:
        raise NoPlan(fewest, problem.max_misses)
    replica_s = problem.slot_s * size
    start = problem.start_s * size
    low, high = 0.0, _price_of_all(problem)
    bound, best = 0.0, _at_price(saved, price=high, on=replica_s, start=start)
    for _ in range(PRICE_STEPS):
        price = (low + high) / 2
        on, cost, missed = _at_price(saved, price=price, on=replica_s, start=start)
        missed_all = missed + fewest
        bound = max(bound, cost + price * (missed_all - problem.max_misses))
        if missed_all <= problem.max_misses + 1e-9:
            high = price
            if cost <= best[1]:
                best = (on, cost, missed)
        else:
            low = price
    on, cost, missed = best
    fleet = on.sum(axis=1)
    return Plan(
        shapes=tuple(Shape(tensor_parallel_size=size, replicas=int(n)) if n else None for n in fleet),
        gpu_hours=problem.gpu_hours(cost),
        misses=missed + fewest,
        bound_gpu_hours=problem.gpu_hours(max(min(bound, cost), 0.0)),
    )


def _price_of_all(problem: Problem) -> float:
    """A price of a miss at which no level that saves anything worth counting stays off."""
    gpus = max(shape.gpus for shape in problem.shapes)
    return 1e6 * gpus * (problem.slot_s + problem.start_s)


def _savings(problem: Problem) -> Floats:
    """(slots, levels): requests that each further replica saves; made to fall from level to level.

    Where curves are not convex (a first replica that saves nothing, a second that saves all), the lower convex
    hull takes their place: the bound stays a bound, and a plan is judged by the simulator anyway.
    """
    counts = [shape.replicas for shape in problem.shapes]
    if sorted(counts) != list(range(1, len(counts) + 1)):
        raise ValueError(f"shapes: write every count of replicas from 1 on, not {counts}")
    order = np.argsort(counts)
    ladder = np.column_stack([problem.requests, problem.misses[:, order]])
    ladder = np.minimum.accumulate(ladder, axis=1)
    return -np.diff(np.apply_along_axis(lower_convex_hull, 1, ladder), axis=1)


def lower_convex_hull(values: Floats) -> Floats:
    """The highest convex sequence that is nowhere above `values` (at 0, 1, 2, …)."""
    hull: list[int] = []
    for i in range(len(values)):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (values[b] - values[a]) * (i - a) < (values[i] - values[a]) * (b - a):
                break
            hull.pop()
        hull.append(i)
    return np.interp(np.arange(len(values)), hull, values[hull])


def _at_price(saved: Floats, *, price: float, on: float, start: float) -> tuple[Flags, float, float]:
    """All levels at once: (slots, levels) on or off, cost in GPU-seconds, requests missed above the fewest.

    Two states a level, forward in time. `off` and `lit` hold the least cost so far of each.
    """
    slots, levels = saved.shape
    lost = price * saved
    off = lost[0].copy()
    lit = np.full(levels, on)
    from_off = np.zeros((slots, levels), dtype=bool)
    to_off = np.zeros((slots, levels), dtype=bool)
    for t in range(1, slots):
        starts = off + start < lit
        stops = lit <= off
        from_off[t], to_off[t] = starts, stops
        lit, off = np.where(starts, off + start, lit) + on, np.where(stops, lit, off) + lost[t]
    states = np.zeros((slots, levels), dtype=bool)
    states[-1] = lit < off
    for t in range(slots - 1, 0, -1):
        states[t - 1] = np.where(states[t], ~from_off[t], to_off[t])
    began = states[1:] & ~states[:-1]
    cost = on * float(states.sum()) + start * float(began.sum())
    return states, cost, float((saved * ~states).sum())
