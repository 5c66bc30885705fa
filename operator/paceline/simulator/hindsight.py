"""A run of any named policy, those that are chosen with hindsight among them.

`static-best`, `static-peak` and `paceline-fixed-tp` are no rivals that somebody could run: they know the traffic.
They are what a rival could be at best without moving, and what Paceline would be without its second dial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
from paceline.simulator.simulation import GiveUp, Run, Setting, simulate
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
    give_up: GiveUp | None = None,
) -> Run:
    """`settings`: of the policy's dials; None: as shipped. `first`: what stands at the beginning, else as a careful
    user would have it."""
    if name == STATIC_BEST:
        return _best_still(traffic, service, setting, seed=seed)
    if name == STATIC_PEAK:
        shape = peak_shape(traffic, service, setting)
        return simulate(traffic, setting, still(shape), first=shape, seed=seed, tell=tell)
    if settings is None:
        settings = {knob.name: knob.default for knob in knobs_of(name, service, traffic)}

    def of_size(size: int, give_up: GiveUp | None) -> Run:
        return simulate(
            traffic,
            setting,
            policy_of(name, service, settings, prior=prior, sizes=(size,)),
            first=service.first_shape(traffic, size),
            seed=seed,
            give_up=give_up,
        )

    if name == OURS_FIXED:
        return _best_of_sizes(of_size, service, requests=len(traffic))
    size = service.careful_size(traffic) if name == OURS else int(settings["tp"])
    return simulate(
        traffic,
        setting,
        policy_of(name, service, settings, prior=prior),
        first=first or service.first_shape(traffic, size),
        seed=seed,
        tell=tell,
        give_up=give_up,
    )


def beaten(*, gpu_hours: float, misses: float) -> GiveUp:
    """A run that costs more than one that holds the objective, or that misses more than it may, cannot win."""
    return lambda missed, spent: spent > gpu_hours or missed > misses


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


def _best_still(traffic: Traffic, service: Service, setting: Setting, *, seed: int) -> Run:
    """For each size the fewest replicas that hold the objective, by bisection among those that are fewer GPUs than
    the best so far; the highest attainment if none hold."""
    best: Run | None = None
    most: list[Run] = []
    for size in service.sizes:
        low, high = 1, service.most_replicas(size)
        if best is not None:
            high = min(high, (best.gpu_trace.gpus[0] - 1) // size)
        while low <= high:
            middle = (low + high) // 2
            shape = Shape(tensor_parallel_size=size, replicas=middle)
            run = simulate(traffic, setting, still(shape), first=shape, seed=seed)
            most.append(run)
            if _attained(run) >= service.slo.objective:
                best, high = run, middle - 1
            else:
                low = middle + 1
    return best or max(most, key=_attained)


def _best_of_sizes(run_of: Callable[[int, GiveUp | None], Run], service: Service, *, requests: int) -> Run:
    """The cheapest that holds the objective; the highest attainment if none does."""
    best: Run | None = None
    most: list[Run] = []
    allowed = (1 - service.slo.objective) * requests
    for size in service.sizes:
        run = run_of(size, beaten(gpu_hours=best.gpu_hours, misses=allowed) if best else None)
        most.append(run)
        if _attained(run) >= service.slo.objective and (best is None or run.gpu_hours < best.gpu_hours):
            best = run
    return best or max(most, key=_attained)


def _attained(run: Run) -> float:
    return float(run.outcomes.good.mean()) if len(run.outcomes.good) else 1.0
