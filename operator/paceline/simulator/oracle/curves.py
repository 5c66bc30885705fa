"""How attainment falls with the rate, for each size and count of replicas, measured by simulating that shape.

No single figure of capacity: more replicas carry more each (pooling), and the last percent of attainment is lost
long before throughput ends. One set of curves holds for one mix of lengths, one engine and one set of targets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paceline.planner import Shape
from paceline.simulator.oracle.problem import Floats

Measure = Callable[[Shape, float], float]
"""Attainment of a shape that stands still, at requests per second of the given mix."""

GOOD, BAD = 0.9995, 0.20
"""A curve is measured from where nearly all meet their targets to where few do."""

FAINT = 3e-4
"""Share of misses below which a measured point is noise."""

INNER_POINTS = 8
HALVINGS = 12
LEAST_RATE = 0.002
"""Requests per second of one replica: unloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One size and count. Beyond the last rate attainment counts as the last; below the first, as the first."""

    replicas: int
    rates: tuple[float, ...]
    """Per replica, ascending."""
    attainment: tuple[float, ...]

    def at(self, rates_per_replica: Floats) -> Floats:
        """Misses grow like powers of the rate, so the line between two points is drawn through their logarithms."""
        missed = 1 - np.minimum.accumulate(np.array(self.attainment))
        found = np.interp(rates_per_replica, self.rates, np.log(missed + FAINT))
        attained: Floats = 1 - np.maximum(np.exp(found) - FAINT, 0.0)
        return attained


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    by_size: Mapping[int, tuple[Curve, ...]]

    def attainment(self, shape: Shape, rates: Floats) -> Floats:
        """For rates of the whole service. Between measured counts, along 1/√n: the way in which pooling fades."""
        curves = self.by_size[shape.tensor_parallel_size]
        n = shape.replicas
        each = np.asarray(rates, dtype=float) / n
        counts = [curve.replicas for curve in curves]
        above = next((i for i, count in enumerate(counts) if count >= n), len(counts) - 1)
        if counts[above] <= n or above == 0:
            return curves[above].at(each)
        fewer, more = curves[above - 1], curves[above]
        span = fewer.replicas**-0.5 - more.replicas**-0.5
        weight = (fewer.replicas**-0.5 - n**-0.5) / span
        between: Floats = (1 - weight) * fewer.at(each) + weight * more.at(each)
        return between


def measure_curves(
    measure: Measure,
    shapes: Mapping[int, Sequence[int]],
    *,
    peak: float = math.inf,
    known: Curves | None = None,
) -> Curves:
    """`shapes`: the counts of replicas to measure, for each tensor-parallel size, ascending. Counts beyond the
    first that serves `peak` (requests per second of the whole service) with ease are left out. `known` curves are
    not measured again."""
    by_size = {}
    for size, counts in shapes.items():
        there = {curve.replicas: curve for curve in known.by_size.get(size, ())} if known else {}
        curves, start = [], 1.0
        for n in sorted({*counts, *there}):
            if n in there:
                curve, start = there[n], _half_rate(there[n])
            else:
                curve = _curve(measure, size, n, start)
                start = _half_rate(curve)
            curves.append(curve)
            left_out = not any(more in there for more in counts if more > n)
            if left_out and float(curve.at(np.array([peak / n]))[0]) >= min(GOOD, curve.attainment[0]):
                break
        by_size[size] = tuple(curves)
    return Curves(by_size=by_size)


def _half_rate(curve: Curve) -> float:
    """The per-replica rate where half of what is lost is lost: where to look first for the next count."""
    half = curve.attainment[0] / 2
    found = (rate for rate, attained in zip(curve.rates, curve.attainment, strict=True) if attained <= half)
    return next(found, curve.rates[-1])


def _curve(measure: Measure, size: int, n: int, start: float) -> Curve:
    shape = Shape(tensor_parallel_size=size, replicas=n)
    found: dict[float, float] = {}

    def at(rate: float) -> float:
        if rate not in found:
            found[rate] = measure(shape, rate * n)
        return found[rate]

    unloaded = at(LEAST_RATE)
    low = high = start
    for _ in range(HALVINGS):
        if at(low) >= min(GOOD, unloaded - 1e-9):
            break
        low /= 1.6
    for _ in range(HALVINGS):
        if at(high) <= BAD * unloaded:
            break
        high *= 1.6
    for rate in np.linspace(low, high, INNER_POINTS + 2)[1:-1]:
        at(float(rate))
    _halve_the_steepest(found, at)
    rates = sorted(found)
    attained = tuple(found[rate] for rate in rates)
    return Curve(replicas=n, rates=tuple(rates), attainment=attained)


def _halve_the_steepest(found: dict[float, float], at: Callable[[float], float]) -> None:
    """More points where the last percents are lost: between the last good rate and the first at 90 %."""
    for _ in range(4):
        rates = sorted(found)
        for a, b in itertools.pairwise(rates):
            if found[a] - found[b] > 0.004 and found[a] > 0.95:
                at((a + b) / 2)
                break
