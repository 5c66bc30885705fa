"""What one tensor-parallel size gives, tabulated once a mix: every candidate of every look is then a look-up.

A table over (share of the highest rate × number of replicas). Misses are tabulated as logarithms, so that the
interpolation is good where it matters, at 1 % and at 0.1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.decision import Prediction
from paceline.planner.performance import ReplicaModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

_SHARES: Final = np.array(
    [1e-6, 0.05, 0.1, 0.2, 0.3, 0.4, 0.47, 0.54, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99]
)
_REPLICAS: Final = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 24.0])
"""What the model is asked for; it changes with 1/replicas, and beyond the last no more."""
_COLUMNS: Final = int(_REPLICAS[-1])
_CELL_SHARES: Final = np.repeat(_SHARES, _REPLICAS.size)
_CELL_REPLICAS: Final = np.tile(_REPLICAS, _SHARES.size)
_LEAST_MISS: Final = 1e-6


class Surface:
    def __init__(self, model: ReplicaModel) -> None:
        self.model = model
        self.most_rate = model.most_rate
        outlook = model.outlook(_CELL_SHARES * self.most_rate, replicas=_CELL_REPLICAS)
        # More load is never better and more replicas never worse: what the approximations say otherwise by
        # a hair must not reach a decision.
        miss = np.maximum(1 - outlook.attainment, _LEAST_MISS).reshape(_SHARES.size, _REPLICAS.size)
        miss = np.minimum.accumulate(np.maximum.accumulate(miss, axis=0), axis=1)
        self.floor_attainment = float(1 - miss[0, -1])
        """Of requests that meet no other: no number of replicas goes beyond it."""
        self.log_miss = _flat(np.log(miss))
        self._times = _flat(np.concatenate([outlook.ttft_s, outlook.tpot_s]).reshape(-1, *miss.shape))

    def miss(self, rate: Floats, *, replicas: Ints | int) -> Floats:
        """Share of requests that miss a target; all of them where queues grow without end.

        `rate` is of one replica; its last axis is that of `replicas`.
        """
        return _miss(self.log_miss, rate / self.most_rate, replicas=replicas)

    def miss_one(self, rate: float, *, replicas: int) -> float:
        return float(self.miss(np.array([rate]), replicas=replicas)[0])

    def predictions(self, rate: Floats, *, replicas: Ints, attainment: Floats) -> list[Prediction]:
        used = rate / self.most_rate
        times = _read(self._times, used, replicas=replicas).T.tolist()
        return [
            Prediction(
                ttft_p50_s=time[0],
                ttft_p95_s=time[1],
                ttft_p99_s=time[2],
                tpot_p50_s=time[3],
                tpot_p95_s=time[4],
                tpot_p99_s=time[5],
                attainment=good,
                utilization=share,
            )
            for time, good, share in zip(times, attainment.tolist(), used.tolist(), strict=True)
        ]


def misses(surfaces: Sequence[Surface], counts: Sequence[int], *, rate: Floats, replicas: Ints) -> Floats:
    """`Surface.miss` of several: the first `counts[0]` places of the last axis are of the first, and so on.

    One pass for all candidates of a look: on so few numbers numpy's calls cost more than its arithmetic.
    """
    which = np.arange(len(surfaces)).repeat(counts)
    used = rate / np.array([one.most_rate for one in surfaces]).take(which)
    tables = np.concatenate([one.log_miss for one in surfaces])
    return _miss(tables, used, replicas=replicas, begins=which * (_SHARES.size * _COLUMNS))


def _miss(log_miss: Floats, used: Floats, *, replicas: Ints | int, begins: Ints | int = 0) -> Floats:
    found = np.exp(_read(log_miss, used, replicas=replicas, begins=begins))
    return np.where(used >= 1, 1.0, np.minimum(found, 1.0))


def _read(tables: Floats, used: Floats, *, replicas: Ints | int, begins: Ints | int = 0) -> Floats:
    """Of the flat table that begins there on the last axis of `tables`; linear in the share of the highest rate."""
    row, down = _place(used, _SHARES)
    above = row * _COLUMNS + (np.minimum(replicas, _COLUMNS) - 1 + begins)
    low, high = tables.take(above, axis=-1), tables.take(above + _COLUMNS, axis=-1)
    return np.asarray(low + (high - low) * down)


def _flat(fields: Floats) -> Floats:
    """From the replicas that the model was asked for to a column for each number of replicas; then row after row."""
    fields = fields[..., ::-1]
    left, across = _place(1 / np.arange(1, _COLUMNS + 1), 1 / _REPLICAS[::-1])
    low, high = fields[..., left], fields[..., left + 1]
    every = low + (high - low) * across
    return np.asarray(every.reshape(*every.shape[:-2], -1))


def _place(value: Floats, knots: Floats) -> tuple[Ints, Floats]:
    """Left knot and the share of the way to the next. The inner knots alone decide: beyond is the last interval."""
    left = knots[1:-1].searchsorted(value)
    low = knots.take(left)
    part = (value - low) / (knots.take(left + 1) - low)
    return left, np.minimum(np.maximum(part, 0.0), 1.0)
