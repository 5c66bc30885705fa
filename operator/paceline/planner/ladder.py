"""The candidates of one tensor-parallel size: so many replicas, and the misses to expect with them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.capacity import Room
from paceline.planner.decision import Prediction, Switch
from paceline.planner.demand import Demand
from paceline.planner.observation import Shape
from paceline.planner.surface import Surface, misses

Floats = npt.NDArray[np.float64]

_HEADROOM_MOST: Final = 2.0
"""No objective needs more than this multiple of the replicas that the load keeps busy, once there are many."""


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
    switches: Mapping[int, Switch] = field(default_factory=dict)
    """What it takes to come to those replicas that only a change in place leads to."""

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

    def fit(self, replicas: int) -> int:
        """The fewest that can be had and are no fewer; the most, where there are none."""
        whole = self.room.whole(replicas)
        if whole <= self.room.most:
            return whole
        enough = [one for one in self.switches if one >= replicas]
        return min(enough) if enough else max(self.room.most, self.room.whole(1), *self.switches)

    def expected_miss(self, replicas: int, demand: Demand) -> float:
        """Of any number, on the ladder or not."""
        rates = demand.rates / self.capacity_factor / replicas
        return float(demand.weights @ self.surface.miss(rates, replicas=replicas))

    def carries(self, replicas: int, demand: Demand) -> bool:
        """Whether queues do not grow without end, however late the answers are."""
        return demand.planned_per_s < replicas * self.surface.most_rate * self.capacity_factor

    def charged(self, share: float, switch: Switch) -> Ladder:
        """`share` of the requests of the expected stay miss because of a change in place."""
        miss = np.minimum(self.miss + share * (self.replicas > self.room.most), 1.0)
        return replace(
            self,
            miss=np.minimum.accumulate(miss),
            switches=dict.fromkeys(self.room.in_place, switch),
        )

    def without_in_place(self) -> Ladder | None:
        """None: nothing is left."""
        kept = self.replicas <= self.room.most
        if not kept.any():
            return None
        return replace(
            self, room=replace(self.room, in_place=()), replicas=self.replicas[kept], miss=self.miss[kept]
        )

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
            highest=demand.highest_per_s / (surface.most_rate * capacity_factor),
            room=rooms[size],
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


def _rungs(floor: float, *, highest: float, room: Room, least: int, current: int) -> npt.NDArray[np.intp]:
    """`floor`: the replicas that the load keeps busy. `highest`: the same in a jump, where one is expected."""
    in_place = np.array(room.in_place, dtype=np.intp)
    if not room.most:
        return in_place
    top = max(int(_HEADROOM_MOST * highest) + 12, current)
    most = room.whole(max(min(top, room.most), least))
    first = max(min(int(floor), most - 12, current - 2 * room.unit if current else most), least)
    beside = np.arange(max(first // room.unit, 1) * room.unit, most + 1, room.unit)
    return np.concatenate((beside, in_place)) if room.in_place else beside
