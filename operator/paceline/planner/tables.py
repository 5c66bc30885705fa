"""The tables that a planner keeps between two looks: dear to make, and they change no answer.

Two levels, because a look asks for several sizes and at most one of these is new. A shelf is for one mix of lengths, one
set of targets and one engine's limits; on it stand the surfaces, one for each size, κ and KV cache that was met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from paceline.planner.mix import Mix
from paceline.planner.observation import Goal
from paceline.planner.performance import ReplicaModel
from paceline.planner.state import Blend
from paceline.planner.surface import Surface
from paceline.planner.workload import mix_of
from paceline_core.timing import StepTiming

_SHELVES: Final = 2
_SURFACES: Final = 12
"""On a shelf: four sizes, and what they were before κ moved."""


class Shelf:
    def __init__(self, timing: Mapping[int, StepTiming], *, mix: Mix, goal: Goal) -> None:
        self.mix = mix
        self._timing = timing
        self._goal = goal
        self._surfaces: dict[tuple[int, float, int | None], Surface] = {}

    def surface(self, size: int, *, scale: float, kv_cache_tokens: int | None) -> Surface:
        """`scale` is κ; `kv_cache_tokens` as the engine reports it, None where the timing's own count holds."""
        key = (size, scale, kv_cache_tokens)
        found = self._surfaces.get(key)
        if found is None:
            timing = self._timing[size].corrected(scale=scale)
            if kv_cache_tokens is not None and kv_cache_tokens > 0:
                timing = replace(timing, kv_cache_tokens=kv_cache_tokens)
            found = Surface(ReplicaModel(timing, mix=self.mix, goal=self._goal))
            if len(self._surfaces) >= _SURFACES:
                del self._surfaces[next(iter(self._surfaces))]
            self._surfaces[key] = found
        return found


class Shelves:
    """Of one service."""

    def __init__(self, timing: Mapping[int, StepTiming]) -> None:
        self._timing = timing
        self._shelves: dict[object, Shelf | None] = {}

    def of(self, blend: Blend, *, goal: Goal) -> Shelf | None:
        """None where the histograms hold no usable count."""
        key = (blend, goal.targets, goal.max_sequences, goal.max_batched_tokens)
        if key not in self._shelves:
            if len(self._shelves) >= _SHELVES:
                del self._shelves[next(iter(self._shelves))]
            mix = mix_of(blend)
            self._shelves[key] = None if mix is None else Shelf(self._timing, mix=mix, goal=goal)
        return self._shelves[key]
