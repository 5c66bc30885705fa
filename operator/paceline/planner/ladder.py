"""The candidates of one tensor-parallel size: 1, 2, 3 … replicas, each with what it would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paceline.planner.capacity import Room
from paceline.planner.observation import Shape
from paceline.planner.performance import Outlook, ReplicaModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    size: int
    room: Room
    replicas: npt.NDArray[np.intp]
    """Ascending."""
    outlook: Outlook
    floor_attainment: float
    """Of a lone request: no number of replicas goes beyond it."""

    def least(self, *, attainment: float) -> int | None:
        """The fewest replicas that are predicted to reach it; None if none on the ladder does."""
        enough = np.flatnonzero(self.outlook.attainment >= attainment)
        return int(self.replicas[enough[0]]) if enough.size else None

    def shape(self, index: int) -> Shape:
        return Shape(tensor_parallel_size=self.size, replicas=int(self.replicas[index]))


def ladder(
    model: ReplicaModel, *, size: int, room: Room, least: int, requests_per_s: float, most_candidates: int
) -> Ladder:
    """Replicas from `least` to the room there is, at most `most_candidates` around what the rate needs."""
    top = max(room.most, least)
    needed = int(min(np.ceil(requests_per_s / model.most_rate), top))
    first = min(max(least, needed - 1), max(top - most_candidates + 1, least))
    replicas = np.arange(first, min(first + most_candidates, top + 1))
    if least < first:
        replicas = np.concatenate(([least], replicas[:-1]))
    counts = replicas.astype(np.float64)
    return Ladder(
        size=size,
        room=room,
        replicas=replicas,
        outlook=model.outlook(requests_per_s / counts, replicas=counts),
        floor_attainment=model.floor()[2],
    )
