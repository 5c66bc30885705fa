"""The same search for every policy: so many trials on the training traffic, then the cheapest setting that held.

First half: settings drawn at random, the same stream for all. Second half: one step on one ladder away from the best
so far. A trial that was run is never run again, so small spaces are searched whole and end early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from paceline.simulator.policies.knob import Knob, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    attainment: float
    gpu_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    settings: Settings
    score: Score


def better(one: Score, other: Score, *, objective: float) -> bool:
    """Fewer GPU-hours among those that hold the objective; else the higher attainment."""
    holds, other_holds = one.attainment >= objective, other.attainment >= objective
    if holds and other_holds:
        return one.gpu_hours < other.gpu_hours
    return holds > other_holds or (not holds and not other_holds and one.attainment > other.attainment)


def best(trials: Sequence[Trial], *, objective: float) -> Trial:
    found = trials[0]
    for trial in trials[1:]:
        if better(trial.score, found.score, objective=objective):
            found = trial
    return found


def tune(
    knobs: Sequence[Knob],
    evaluate: Callable[[Settings, float | None], Score],
    *,
    objective: float,
    trials: int,
    seed: int,
) -> list[Trial]:
    """All trials in the order they were run; the first is the policy as shipped. `evaluate` gets the GPU-hours of the
    cheapest trial so far that held the objective, if one did: one that comes to cost more may be broken off, and
    counts as one that did not hold."""
    random = np.random.default_rng(seed)
    done: dict[tuple[float, ...], Trial] = {}
    names = [knob.name for knob in knobs]
    least = min(trials, prod(len({*knob.ladder, knob.default}) for knob in knobs))

    def run(values: tuple[float, ...]) -> None:
        if values not in done:
            settings = dict(zip(names, values, strict=True))
            done[values] = Trial(
                settings=settings, score=evaluate(settings, _cheapest(done.values(), objective))
            )

    run(tuple(knob.default for knob in knobs))
    for values in _drawn(knobs, random):
        if len(done) >= (least + 1) // 2:
            break
        run(values)
    while len(done) < least:
        before = len(done)
        centre = tuple(best(list(done.values()), objective=objective).settings[name] for name in names)
        for values in _neighbours(knobs, centre, random):
            if values not in done:
                run(values)
                break
        if len(done) == before:
            for values in _drawn(knobs, random):
                run(values)
                if len(done) > before:
                    break
            else:
                break
    return list(done.values())


def _cheapest(trials: Iterable[Trial], objective: float) -> float | None:
    held = (one.score.gpu_hours for one in trials if one.score.attainment >= objective)
    return min(held, default=None)


def _drawn(knobs: Sequence[Knob], random: np.random.Generator) -> Iterator[tuple[float, ...]]:
    """Settings at random; an end, for a space that is nearly used up."""
    for _ in range(2000):
        yield tuple(knob.ladder[int(random.integers(len(knob.ladder)))] for knob in knobs)


def _neighbours(
    knobs: Sequence[Knob], centre: tuple[float, ...], random: np.random.Generator
) -> list[tuple[float, ...]]:
    """One step on one ladder, in random order. A default that is on no rung counts as the nearest."""
    found = []
    for i, knob in enumerate(knobs):
        at = min(range(len(knob.ladder)), key=lambda rung: abs(knob.ladder[rung] - centre[i]))
        for rung in (at - 1, at, at + 1):
            if 0 <= rung < len(knob.ladder) and knob.ladder[rung] != centre[i]:
                found.append((*centre[:i], knob.ladder[rung], *centre[i + 1 :]))
    random.shuffle(found)
    return found


def walk(knob: Knob, tuned: float, holds: Callable[[float], bool], *, points: int) -> None:
    """From the tuned value along the ladder to where the objective begins to hold: to fewer GPUs as long as it does,
    else to more until it does. A ladder whose far end does not hold is looked at on the other side too. At most
    `points` values are asked for."""
    at = min(range(len(knob.ladder)), key=lambda rung: abs(knob.ladder[rung] - tuned))
    rest = [rung for rung in range(len(knob.ladder)) if knob.ladder[rung] != tuned]
    cheaper = [knob.ladder[rung] for rung in reversed(rest) if rung <= at]
    dearer = [knob.ladder[rung] for rung in rest if rung > at]
    if holds(tuned):
        for value in cheaper[: points - 1]:
            if not holds(value):
                return
        return
    for value in [*dearer, *cheaper][: points - 1]:
        if holds(value):
            return
