"""The candidates of one tensor-parallel size: so many replicas, and the misses to expect with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.capacity import Room
from paceline.planner.decision import Prediction
from paceline.planner.demand import Demand
from paceline.planner.observation import Shape
from paceline.planner.surface import Surface

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
        first = int(self._rising.searchsorted(-allowed_miss))
        return int(self.replicas[first]) if first < self.replicas.size else None

    @cached_property
    def _rising(self) -> Floats:
        """`miss` falls with the replicas: negated, it can be searched."""
        return -self.miss

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
        counts = self.replicas[indices].astype(np.float64)
        return self.surface.predictions(
            self.rate_per_s / self.capacity_factor / counts,
            replicas=counts,
            attainment=1 - self.miss[indices],
        )

    def shape(self, index: int) -> Shape:
        return Shape(tensor_parallel_size=self.size, replicas=int(self.replicas[index]))


def ladder(
    surface: Surface,
    *,
    size: int,
    room: Room,
    least: int,
    current: int,
    demand: Demand,
    capacity_factor: float,
) -> Ladder:
    """From `least` replicas to the most that could be of use, and to the current ones."""
    carried = surface.most_rate * capacity_factor
    floor = demand.planned_per_s / carried
    top = max(int(_HEADROOM_MOST * floor) + 12, current)
    most = max(min(top, room.most), least)
    first = max(min(int(floor), most - 12, current - 2 if current else most), least)
    replicas = np.arange(first, most + 1)
    counts = replicas.astype(np.float64)
    rates = demand.rates[:, None] / capacity_factor / counts
    miss = demand.weights @ surface.miss(rates, replicas=counts)
    return Ladder(
        size=size,
        room=room,
        surface=surface,
        replicas=replicas,
        miss=np.minimum.accumulate(miss),
        rate_per_s=demand.planned_per_s,
        capacity_factor=capacity_factor,
    )
