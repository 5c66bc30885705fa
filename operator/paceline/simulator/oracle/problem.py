"""The optimum's question, without traffic, engines or clocks: slots of time, shapes, and what each misses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.planner import Shape

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Which shape in which slot, at the fewest GPU-hours, such that at most `max_misses` requests miss.

    A replica costs its GPUs from the moment it starts; it serves `start_s` later. What runs in the first slot
    was there before and pays no start. Ending a replica is free.
    """

    slot_s: float
    shapes: tuple[Shape, ...]
    """Candidates; nothing at all (0 replicas) is always one and is not among them."""
    misses: Floats
    """(slots, shapes): requests of the slot that miss a target when that shape serves it."""
    requests: Floats
    """(slots,): all of them miss when nothing serves."""
    start_s: float
    max_misses: float
    max_gpus: int | None = None

    def __post_init__(self) -> None:
        if self.misses.shape != (len(self.requests), len(self.shapes)):
            raise ValueError(f"misses: write (slots, shapes), not {self.misses.shape}")
        if any(shape.replicas < 1 for shape in self.shapes):
            raise ValueError("shapes: leave out the shape of no replicas; it is always there")

    @property
    def slots(self) -> int:
        return len(self.requests)

    @property
    def tensor_parallel_sizes(self) -> tuple[int, ...]:
        return tuple(sorted({shape.tensor_parallel_size for shape in self.shapes}))

    def gpu_hours(self, gpu_seconds: float) -> float:
        return gpu_seconds / SECONDS_PER_HOUR

    def of_size(self, tensor_parallel_size: int) -> Problem:
        """The same question with one tensor-parallel size alone."""
        keep = [
            i for i, shape in enumerate(self.shapes) if shape.tensor_parallel_size == tensor_parallel_size
        ]
        return Problem(
            slot_s=self.slot_s,
            shapes=tuple(self.shapes[i] for i in keep),
            misses=self.misses[:, keep],
            requests=self.requests,
            start_s=self.start_s,
            max_misses=self.max_misses,
            max_gpus=self.max_gpus,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A shape for each slot (None: nothing), what it costs and what it misses by the curves."""

    shapes: tuple[Shape | None, ...]
    gpu_hours: float
    misses: float
    bound_gpu_hours: float
    """No plan of this kind within the budget of misses costs less (Lagrange)."""


class NoPlan(Exception):
    """No shape of the problem keeps within the budget of misses. Carries the fewest misses possible."""

    def __init__(self, fewest_misses: float, max_misses: float) -> None:
        super().__init__(
            f"even the best shapes miss {fewest_misses:.1f} requests, and only {max_misses:.1f} may: "
            "raise max GPUs or the targets"
        )
        self.fewest_misses = fewest_misses
        self.max_misses = max_misses
