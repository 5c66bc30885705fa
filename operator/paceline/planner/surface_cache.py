"""The surfaces that a planner keeps between two looks: dear to make, and they change no answer.

Two levels, because a look asks for several sizes and at most one of these is new: `SurfaceCache` holds what there is for each
mix of lengths, set of targets and engine's limits; `MixSurfaces` the surfaces of one, for each size, κ and KV cache.
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

_SURFACES: Final = 6
"""Those used last: four sizes, and two more while κ moves. One takes some 40 KB, and there is a cache for each service."""


class MixSurfaces:
    def __init__(self, timing: Mapping[int, StepTiming], *, mix: Mix, goal: Goal) -> None:
        self.mix = mix
        self._timing = timing
        self._goal = goal
        self._surfaces: dict[tuple[int, float, int | None], Surface] = {}

    def surface(self, size: int, *, scale: float, kv_cache_tokens: int | None) -> Surface:
        """`scale` is κ; `kv_cache_tokens` as the engine reports it, None where the timing's own count holds."""
        key = (size, scale, kv_cache_tokens)
        found = self._surfaces.pop(key, None)
        if found is None:
            timing = self._timing[size].corrected(scale=scale)
            if kv_cache_tokens is not None and kv_cache_tokens > 0:
                timing = replace(timing, kv_cache_tokens=kv_cache_tokens)
            found = Surface(ReplicaModel(timing, mix=self.mix, goal=self._goal))
            if len(self._surfaces) >= _SURFACES:
                del self._surfaces[next(iter(self._surfaces))]
        self._surfaces[key] = found
        return found


class SurfaceCache:
    """Of one service. The last mix is enough: one that was left never comes back to the digit."""

    def __init__(self, timing: Mapping[int, StepTiming]) -> None:
        self._timing = timing
        self._last: tuple[object, MixSurfaces | None] | None = None

    def of(self, blend: Blend, *, goal: Goal) -> MixSurfaces | None:
        """None where the histograms hold no usable count."""
        key = (blend, goal.targets, goal.max_sequences, goal.max_batched_tokens)
        if self._last is None or self._last[0] != key:
            mix = mix_of(blend)
            self._last = key, None if mix is None else MixSurfaces(self._timing, mix=mix, goal=goal)
        return self._last[1]
