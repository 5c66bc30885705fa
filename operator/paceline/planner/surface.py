"""What one tensor-parallel size gives, tabulated once a mix: every candidate of every look is then a look-up.

A table over (share of the highest rate × number of replicas). Misses are tabulated as logarithms, so that the
interpolation is good where it matters, at 1 % and at 0.1 %.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.decision import Prediction
from paceline.planner.performance import ReplicaModel

Floats = npt.NDArray[np.float64]

_SHARES: Final = np.array(
    [1e-6, 0.05, 0.1, 0.2, 0.3, 0.4, 0.47, 0.54, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99]
)
_REPLICAS: Final = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 24.0])
_INVERSE: Final = 1 / _REPLICAS[::-1]
_SHARE_WIDTHS: Final = np.diff(_SHARES)
_INVERSE_WIDTHS: Final = np.diff(_INVERSE)
_LEAST_MISS: Final = 1e-6


class Surface:
    def __init__(self, model: ReplicaModel) -> None:
        self.model = model
        self.most_rate = model.most_rate
        share, replicas = np.meshgrid(_SHARES, _REPLICAS, indexing="ij")
        outlook = model.outlook((share * self.most_rate).ravel(), replicas=replicas.ravel())
        # More load is never better and more replicas never worse: what the approximations say otherwise by
        # a hair must not reach a decision.
        miss = np.maximum(1 - outlook.attainment, _LEAST_MISS).reshape(share.shape)
        miss = np.maximum.accumulate(miss, axis=0)
        miss = np.minimum.accumulate(miss, axis=1)
        times = (one.reshape(share.shape) for one in outlook.percentiles())
        self._fields = np.ascontiguousarray(np.stack([np.log(miss), *times])[:, :, ::-1])
        self.floor_attainment = float(1 - miss[0, -1])
        """Of requests that meet no other: no number of replicas goes beyond it."""

    def miss(self, rate: Floats, *, replicas: Floats) -> Floats:
        """Share of requests that miss a target; all of them where queues grow without end.

        `rate` is of one replica; its last axis is that of `replicas`.
        """
        found = np.exp(self._at(self._fields[0], rate, replicas))
        return np.where(rate >= self.most_rate, 1.0, np.minimum(found, 1.0))

    def miss_one(self, rate: float, *, replicas: int) -> float:
        return float(self.miss(np.array([rate]), replicas=np.array([float(replicas)]))[0])

    def predictions(self, rate: Floats, *, replicas: Floats, attainment: Floats) -> list[Prediction]:
        times = self._at(self._fields[1:], rate, replicas).T.tolist()
        used = (rate / self.most_rate).tolist()
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
            for time, good, share in zip(times, attainment.tolist(), used, strict=True)
        ]

    def _at(self, fields: Floats, rate: Floats, replicas: Floats) -> Floats:
        """Bilinear in the share of the highest rate and in 1/replicas, over the last two axes of `fields`."""
        row, down = _place(rate / self.most_rate, _SHARES, _SHARE_WIDTHS)
        column, across = _place(1 / replicas, _INVERSE, _INVERSE_WIDTHS)
        flat = fields.reshape(*fields.shape[:-2], -1)
        corner = row * _INVERSE.size + column
        low, high = flat.take(corner, axis=-1), flat.take(corner + _INVERSE.size, axis=-1)
        low += (flat.take(corner + 1, axis=-1) - low) * across
        high += (flat.take(corner + _INVERSE.size + 1, axis=-1) - high) * across
        high -= low
        high *= down
        low += high
        return np.asarray(low)


def _place(value: Floats, knots: Floats, widths: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Left knot and the share of the way to the next. The inner knots alone decide: beyond is the last interval."""
    left = knots[1:-1].searchsorted(value)
    part = (value - knots.take(left)) / widths.take(left)
    return left, np.minimum(np.maximum(part, 0.0), 1.0)
