"""Corrects the timing prior from the service's own measurements: κ for each tensor-parallel size.

The engines say how long a token took and how many sequences ran; the model says how long it should have
taken at that batch. The logarithm of the ratio goes through a scalar Kalman filter. An untried size takes over
what the tried ones have in common, but is never credited with being faster than its table: optimism that
nothing has measured would buy a change of size that does not pay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from paceline.planner.observation import Group, Quantiles
from paceline.planner.performance import ReplicaModel
from paceline.planner.state import Calibration

LEAST, MOST = 0.5, 2.5
"""Bounds of κ: a figure outside says that the table is of another model or GPU."""
_PRIOR_VARIANCE: Final = 0.15**2
"""Of a table's bias: within 15 % on rows that it was not fitted on."""
_DRIFT_VARIANCE_PER_S: Final = 0.02**2 / 3600
_NOISE_VARIANCE: Final = 0.08**2
_OUTLIER_SIGMAS: Final = 3.0
_OUTLIERS_IN_A_ROW: Final = 4
"""Windows on one side of the band after which they are believed: a driver update lasts, a stray scrape does not."""
_SHARED_VARIANCE: Final = 0.08**2
"""How far sizes differ from what they have in common."""
_STEP: Final = 0.01
"""κ moves in steps of 1 %: tables are made anew for each."""
_LEAST_RUNNING: Final = 0.3


def updated(
    known: tuple[Calibration, ...],
    *,
    group: Group,
    model: ReplicaModel,
    rate_per_replica: float,
    passed_s: float,
) -> tuple[Calibration, ...]:
    """`model` is the one that `known` corrects already."""
    size = group.tensor_parallel_size
    by_token, by_request = _mean(group.inter_token_latency), _mean(group.time_per_output_token)
    measured = by_request if by_token is None else by_token
    running = group.running.fresh
    if measured is None or running is None or group.ready == 0 or running / group.ready < _LEAST_RUNNING:
        return known
    predicted, gain = model.gap_s(
        batch=running / group.ready, rate=rate_per_replica, by_request=by_token is None
    )
    if not (math.isfinite(predicted) and predicted > 0):
        return known
    old = next((one for one in known if one.tensor_parallel_size == size), None) or Calibration(
        tensor_parallel_size=size,
        mean=math.log(shared(known)),
        variance=_PRIOR_VARIANCE,
        measurements=0,
        outliers=0,
    )
    new = _filtered(old, surprise=math.log(measured / predicted), gain=gain, passed_s=passed_s)
    return (*(one for one in known if one.tensor_parallel_size != size), new)


def _mean(latency: Quantiles) -> float | None:
    value = latency.mean_s.fresh
    return value if value is not None and math.isfinite(value) and value > 0 else None


def _filtered(old: Calibration, *, surprise: float, gain: float, passed_s: float) -> Calibration:
    variance = old.variance + _DRIFT_VARIANCE_PER_S * passed_s
    total = gain * gain * variance + _NOISE_VARIANCE
    if abs(surprise) > _OUTLIER_SIGMAS * math.sqrt(total):
        side = 1 if surprise > 0 else -1
        row = old.outliers + side if old.outliers * side >= 0 else side
        if abs(row) < _OUTLIERS_IN_A_ROW:
            return replace(old, variance=variance, outliers=row)
        variance = max(variance, _PRIOR_VARIANCE)
        total = gain * gain * variance + _NOISE_VARIANCE
    weight = variance * gain / total
    mean = min(max(old.mean + weight * surprise, math.log(LEAST)), math.log(MOST))
    return replace(
        old,
        mean=mean,
        variance=max(variance * (1 - weight * gain), 1e-6),
        measurements=old.measurements + 1,
        outliers=0,
    )


def shared(known: tuple[Calibration, ...]) -> float:
    """What the tried sizes have in common, drawn towards 1."""
    weight = 1 / _PRIOR_VARIANCE
    total = 0.0
    for one in known:
        if one.measurements:
            precision = 1 / (one.variance + _SHARED_VARIANCE)
            weight += precision
            total += precision * one.mean
    return math.exp(total / weight)


def scales(known: tuple[Calibration, ...], sizes: Mapping[int, object]) -> dict[int, float]:
    """κ to use for each size."""
    tried = {one.tensor_parallel_size: one for one in known if one.measurements}
    untried = max(shared(known), 1.0)
    return {size: _rounded(math.exp(tried[size].mean) if size in tried else untried) for size in sizes}


def certainty(known: tuple[Calibration, ...], size: int) -> float:
    """0: the prior alone. Towards 1 as measurements narrow it."""
    one = next((one for one in known if one.tensor_parallel_size == size and one.measurements), None)
    return 0.0 if one is None else max(1 - math.sqrt(one.variance / _PRIOR_VARIANCE), 0.0)


def _rounded(scale: float) -> float:
    return math.exp(round(math.log(min(max(scale, LEAST), MOST)) / _STEP) * _STEP)
