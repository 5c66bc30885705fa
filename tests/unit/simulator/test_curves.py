from __future__ import annotations

import math

import numpy as np

from paceline.planner import Shape
from paceline.simulator.oracle.curves import measure_curves


def _true(shape: Shape, rate: float) -> float:
    """Pooling: more replicas carry more each; a size carries in proportion."""
    each = rate / shape.gpus / (1 - 0.4 / math.sqrt(shape.replicas))
    return 1 / (1 + math.exp(14 * (each - 1)))


def test_curves_say_what_was_measured_between_the_points_too() -> None:
    curves = measure_curves(_true, {1: (1, 2, 4, 8, 16), 4: (1, 2, 4)})
    for shape in (
        Shape(tensor_parallel_size=1, replicas=4),
        Shape(tensor_parallel_size=1, replicas=6),
        Shape(tensor_parallel_size=4, replicas=3),
    ):
        rates = np.linspace(0.05, 1.3, 40) * shape.gpus
        found = curves.attainment(shape, rates)
        truth = np.array([_true(shape, rate) for rate in rates])
        assert np.max(np.abs(found - truth)) < 0.06
        near_target = truth > 0.98
        assert np.max(np.abs(found - truth)[near_target]) < 0.003


def test_a_curve_never_rises_with_the_rate() -> None:
    random = np.random.default_rng(0)
    curves = measure_curves(
        lambda shape, rate: min(1.0, max(0.0, _true(shape, rate) + random.normal(0, 0.01))), {2: (1, 3)}
    )
    for n in (1, 2, 3):
        found = curves.attainment(Shape(tensor_parallel_size=2, replicas=n), np.linspace(0.01, 9, 200))
        assert np.all(np.diff(found) <= 1e-12)


def test_a_floor_above_the_target_is_no_endless_search() -> None:
    calls = []

    def never(shape: Shape, rate: float) -> float:
        calls.append(rate)
        return 0.0

    curves = measure_curves(never, {8: (1, 2)})
    assert len(calls) < 80
    assert curves.attainment(Shape(tensor_parallel_size=8, replicas=2), np.array([0.1]))[0] == 0.0


def test_known_curves_are_not_measured_again_and_grow_with_the_peak() -> None:
    calls: list[Shape] = []

    def measure(shape: Shape, rate: float) -> float:
        calls.append(shape)
        return _true(shape, rate)

    counts = {1: (1, 2, 4, 8, 16)}
    small = measure_curves(measure, counts, peak=1.0)
    assert max(curve.replicas for curve in small.by_size[1]) < 16
    calls.clear()
    assert measure_curves(measure, counts, peak=0.5, known=small).by_size == small.by_size
    assert not calls
    large = measure_curves(measure, counts, peak=9.0, known=small)
    assert {shape.replicas for shape in calls}.isdisjoint({curve.replicas for curve in small.by_size[1]})
    assert large.by_size == measure_curves(_true, counts, peak=9.0).by_size
