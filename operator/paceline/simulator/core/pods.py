"""Pods that hold GPUs: how long each takes to start, and what was held when."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StartStages:
    """What a start is made of. The image is pulled once a node and compiled code is kept per node and size: a
    later start there skips these two."""

    schedule_s: float = 2.0
    image_s: float = 0.0
    weights_s: float = 60.0
    compile_s: float = 40.0
    warm_up_s: float = 15.0
    ready_s: float = 3.0
    """From serving to being known to the routers: probe, endpoints, watch."""

    def took_s(self, *, image_there: bool, compiled_there: bool) -> float:
        """GPUs are held from the end of `schedule_s` on; the little before is counted too."""
        image_s = 0.0 if image_there else self.image_s
        compile_s = 0.0 if compiled_there else self.compile_s
        return self.schedule_s + image_s + self.weights_s + compile_s + self.warm_up_s + self.ready_s


@dataclass(slots=True, kw_only=True)
class Pod:
    slot: int
    size: int
    node: int
    created_s: float
    ready_s: float
    draining: bool = False
    """It has been told to leave."""
    unrouted_s: float = math.inf
    """When the last router has forgotten it: until then it is still sent requests, and takes them."""
    gone_s: float = math.inf
    """When its GPUs are free; known once its last stream has ended."""


@dataclass(slots=True, kw_only=True)
class GpuTrace:
    """GPUs held, as steps."""

    at_s: list[float] = field(default_factory=list)
    gpus: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, at_s: float, gpus: int, size: int) -> None:
        if self.at_s and self.at_s[-1] == at_s:
            self.gpus[-1], self.sizes[-1] = gpus, size
        elif not self.gpus or self.gpus[-1] != gpus or self.sizes[-1] != size:
            self.at_s.append(at_s)
            self.gpus.append(gpus)
            self.sizes.append(size)

    def gpu_seconds(self, *, until_s: float, from_s: float = 0.0) -> float:
        total = 0.0
        ends = [*self.at_s[1:], math.inf]
        for at_s, end_s, gpus in zip(self.at_s, ends, self.gpus, strict=True):
            total += gpus * max(min(end_s, until_s) - max(at_s, from_s), 0.0)
        return total
