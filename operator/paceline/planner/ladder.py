"""The candidates of one tensor-parallel size: so many replicas, and the misses to expect with them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.capacity import Room
from paceline.planner.decision import Prediction
from paceline.planner.demand import Demand
from paceline.planner.observation import Shape
from paceline.planner.surface import Surface, misses

Floats = npt.NDArray[np.float64]

_HEADROOM_MOST: Final = 2.0
"""No objective needs more than this multiple of the replicas that the highest rate needs, once there are many."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    size: int
    room: Room
    surface: Surface
    replicas: npt.NDArray[np.intp]
    """Ascending."""
    miss: Floats
    """Share of requests expected to miss a target, over the demand that may come."""
    rate_per_s: float
    capacity_factor: float

    @property
    def floor_miss(self) -> float:
        """Of a lone request: no number of replicas goes below it."""
        return 1 - self.surface.floor_attainment

    @property
    def most(self) -> int:
        return int(self.replicas[-1])

    def least(self, allowed_miss: float) -> int | None:
        """The fewest replicas expected to miss no more; None if none on the ladder does."""
        first = bisect_left(self._rising, -allowed_miss)
        return int(self.replicas[first]) if first < self.replicas.size else None

    @cached_property
    def _rising(self) -> list[float]:
        """`miss` falls with the replicas: negated, it can be searched."""
        return [-one for one in self.miss.tolist()]

    def miss_at(self, replicas: int) -> float:
        index = int(np.searchsorted(self.replicas, replicas))
        if index < self.replicas.size and self.replicas[index] == replicas:
            return float(self.miss[index])
        return float(self.miss[min(max(index - 1, 0), self.replicas.size - 1)]) if index else 1.0

    @cached_property
    def best(self) -> tuple[float, float]:
        """For the choice among sizes when none is enough: the misses at the most replicas, and what they carry."""
        return float(self.miss[-1]), self.most * self.surface.most_rate

    def shown(self, around: int, *, count: int) -> npt.NDArray[np.intp]:
        """Indices of the candidates worth listing: those next to the answer."""
        middle = int(np.searchsorted(self.replicas, around))
        first = max(min(middle - count // 2, self.replicas.size - count), 0)
        return np.arange(first, min(first + count, self.replicas.size))

    def predictions(self, indices: npt.NDArray[np.intp]) -> list[Prediction]:
        counts = self.replicas[indices]
        return self.surface.predictions(
            self.rate_per_s / self.capacity_factor / counts,
            replicas=counts,
            attainment=1 - self.miss[indices],
        )

    def shape(self, index: int) -> Shape:
        return Shape(tensor_parallel_size=self.size, replicas=int(self.replicas[index]))


def ladders_of(
    surfaces: Mapping[int, Surface],
    *,
    rooms: Mapping[int, Room],
    least: int,
    current: Shape | None,
    demand: Demand,
    capacity_factor: float,
) -> tuple[Ladder, ...]:
    """One for each size: from `least` replicas to the most that could be of use, and to the current ones."""
    if not surfaces:
        return ()
    rungs = [
        _rungs(
            demand.planned_per_s / (surface.most_rate * capacity_factor),
            most=rooms[size].most,
            least=min(least, rooms[size].most),
            current=current.replicas if current is not None and current.tensor_parallel_size == size else 0,
        )
        for size, surface in surfaces.items()
    ]
    counts = np.concatenate(rungs)
    miss = demand.weights @ misses(
        tuple(surfaces.values()),
        [one.size for one in rungs],
        rate=demand.rates[:, None] / capacity_factor / counts,
        replicas=counts,
    )
    ends = accumulate(one.size for one in rungs)
    return tuple(
        Ladder(
            size=size,
            room=rooms[size],
            surface=surface,
            replicas=replicas,
            miss=np.minimum.accumulate(miss[end - replicas.size : end]),
            rate_per_s=demand.planned_per_s,
            capacity_factor=capacity_factor,
        )
        for (size, surface), replicas, end in zip(surfaces.items(), rungs, ends, strict=True)
    )


def _rungs(floor: float, *, most: int, least: int, current: int) -> npt.NDArray[np.intp]:
    """`floor`: the replicas that the highest rate needs."""
    top = max(int(_HEADROOM_MOST * floor) + 12, current)
    most = max(min(top, most), least)
    first = max(min(int(floor), most - 12, current - 2 if current else most), least)
    return np.arange(first, most + 1)
