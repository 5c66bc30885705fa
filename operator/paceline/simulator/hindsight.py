"""A run of any named policy, those that are chosen with hindsight among them.

`static-best`, `static-peak` and `paceline-fixed-tp` are no rivals that somebody could run: they know the traffic.
They are what a rival could be at best without moving, and what Paceline would be without its second dial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from paceline.planner import Shape
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.oracle.optimum import Slots, curves_of
from paceline.simulator.policies.knob import Settings
from paceline.simulator.policies.named import (
    OURS,
    OURS_FIXED,
    STATIC_BEST,
    STATIC_PEAK,
    knobs_of,
    policy_of,
    still,
)
from paceline.simulator.service import Service
from paceline.simulator.simulation import Run, Setting, simulate
from paceline_core.timing import StepTiming

Tell = Callable[[float], None]

PEAK_WINDOW_S = 300.0


def run_named(
    name: str,
    traffic: Traffic,
    service: Service,
    setting: Setting,
    *,
    settings: Settings | None = None,
    seed: int,
    prior: Mapping[int, StepTiming] | None = None,
    first: Shape | None = None,
    tell: Tell | None = None,
) -> Run:
    """`settings`: of the policy's dials; None: as shipped. `first`: what stands at the beginning, else as a careful
    user would have it."""
    if name == STATIC_BEST:
        return _cheapest(
            (_best_of_size(size, traffic, service, setting, seed=seed) for size in service.sizes),
            service.slo.objective,
        )
    if name == STATIC_PEAK:
        shape = peak_shape(traffic, service, setting)
        return simulate(traffic, setting, still(shape), first=shape, seed=seed, tell=tell)
    if settings is None:
        settings = {knob.name: knob.default for knob in knobs_of(name, service, traffic)}
    if name == OURS_FIXED:
        return _cheapest(
            (
                simulate(
                    traffic,
                    setting,
                    policy_of(name, service, settings, prior=prior, sizes=(size,)),
                    first=service.first_shape(traffic, size),
                    seed=seed,
                )
                for size in service.sizes
            ),
            service.slo.objective,
        )
    size = service.careful_size(traffic) if name == OURS else int(settings["tp"])
    return simulate(
        traffic,
        setting,
        policy_of(name, service, settings, prior=prior),
        first=first or service.first_shape(traffic, size),
        seed=seed,
        tell=tell,
    )


def peak_shape(traffic: Traffic, service: Service, setting: Setting) -> Shape:
    """The fewest GPUs that hold the objective at the busiest five minutes, if they lasted, by measured curves."""
    slots = Slots.of(traffic)
    peak = float(_rates(traffic, PEAK_WINDOW_S).max(initial=1e-3))
    highest = float((slots.requests / slots.slot_s).max())
    fits: list[Shape] = []
    most: list[tuple[float, Shape]] = []
    each = [curves_of(service, mix, setting.goal.targets, peak=highest) for mix in slots.mixes]
    for size in service.sizes:
        for n in range(1, service.most_replicas(size) + 1):
            shape = Shape(tensor_parallel_size=size, replicas=n)
            worst = min(float(curves.attainment(shape, np.array([peak]))[0]) for curves in each)
            most.append((worst, shape))
            if worst >= service.slo.objective:
                fits.append(shape)
                break
    if fits:
        return min(fits, key=lambda shape: shape.gpus)
    return max(most, key=lambda pair: (pair[0], -pair[1].gpus))[1]


def _rates(traffic: Traffic, window_s: float) -> np.ndarray:
    counted: np.ndarray = np.bincount((traffic.arrival_s // window_s).astype(int))
    return counted / window_s


def _best_of_size(size: int, traffic: Traffic, service: Service, setting: Setting, *, seed: int) -> Run:
    """The fewest replicas that hold the objective, by bisection; the most there can be if none do."""
    runs: dict[int, Run] = {}

    def holds(n: int) -> bool:
        shape = Shape(tensor_parallel_size=size, replicas=n)
        runs[n] = simulate(traffic, setting, still(shape), first=shape, seed=seed)
        return _attained(runs[n]) >= service.slo.objective

    low, high = 1, service.most_replicas(size)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    if low not in runs:
        holds(low)
    return runs[low]


def _cheapest(runs: Iterable[Run], objective: float) -> Run:
    """Of those that hold the objective; else the one with the highest attainment."""
    every = list(runs)
    held = [run for run in every if _attained(run) >= objective]
    return min(held, key=lambda run: run.gpu_hours) if held else max(every, key=_attained)


def _attained(run: Run) -> float:
    return float(run.outcomes.good.mean()) if len(run.outcomes.good) else 1.0
