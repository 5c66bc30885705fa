"""One simulated service: pods that start, serve, drain and stop on nodes of 8 GPUs, and the clock that moves them.

The shape that a policy asks for becomes pods as the fleet would do it: replicas of the asked size are added or
drained; another size is brought up beside the first and the first leaves when it is ready, or, where there
are no GPUs for both, one by one in place. Deterministic by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paceline.planner import Shape
from paceline.simulator.core import kernel
from paceline.simulator.core.traffic import Floats, Ints, Traffic
from paceline_core.timing import StepTiming

GPUS_PER_NODE = 8
MOST_PODS = 160
ROUTERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    timing: Mapping[int, StepTiming]
    max_gpus: int
    start_s: float
    max_sequences: int = 256
    max_batched_tokens: int = 8192
    router: int = kernel.POWER_OF_TWO
    max_hold_s: float = 240.0


@dataclass(slots=True, kw_only=True)
class Pod:
    slot: int
    size: int
    node: int
    created_s: float
    ready_s: float
    draining: bool = False


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


class World:
    def __init__(self, traffic: Traffic, settings: WorldSettings, *, first: Shape, seed: int) -> None:
        self.traffic = traffic
        self.settings = settings
        self.now_s = 0.0
        n = len(traffic)
        self._arrival_s: Floats = np.ascontiguousarray(traffic.arrival_s, dtype=np.float64)
        self.prompt: Ints = np.maximum(traffic.prompt_tokens, 1).astype(np.int64)
        self.output: Ints = np.maximum(traffic.output_tokens, 1).astype(np.int64)
        self.generated = np.zeros(n, dtype=np.int64)
        self._computed = np.zeros(n, dtype=np.int64)
        self._held_blocks = np.zeros(n, dtype=np.int64)
        self.state = np.zeros(n, dtype=np.int8)
        self._following = np.full(n, kernel.NONE, dtype=np.int64)
        self.first_token_s = np.full(n, np.nan)
        self.done_s = np.full(n, np.nan)
        self._router_of = np.zeros(n, dtype=np.int64)
        self.replica_of = np.full(n, kernel.NONE, dtype=np.int64)
        self._head = np.full(MOST_PODS, kernel.NONE, dtype=np.int64)
        self._tail = np.full(MOST_PODS, kernel.NONE, dtype=np.int64)
        self.held = np.full(2, kernel.NONE, dtype=np.int64)
        self.status = np.zeros(MOST_PODS, dtype=np.int8)
        self._step_end_s = np.full(MOST_PODS, np.inf)
        self._running = np.zeros((MOST_PODS, settings.max_sequences), dtype=np.int64)
        self._chunk = np.zeros((MOST_PODS, settings.max_sequences), dtype=np.int64)
        self.counts = np.zeros((MOST_PODS, 4), dtype=np.int64)
        self.outstanding = np.zeros((ROUTERS, MOST_PODS), dtype=np.int64)
        self.size_of_slot = np.zeros(MOST_PODS, dtype=np.int64)
        self._timing = np.zeros((MOST_PODS, 4))
        most_knots = max(len(one.knot_tokens) for one in settings.timing.values())
        self._knot_tokens = np.zeros((MOST_PODS, most_knots))
        self._knot_s = np.zeros((MOST_PODS, most_knots))
        self._knots = np.zeros(MOST_PODS, dtype=np.int64)
        self.firsts = np.zeros(n, dtype=np.int64)
        self.firsts_count = np.zeros(1, dtype=np.int64)
        self.finished = np.zeros(n, dtype=np.int64)
        self.finished_count = np.zeros(1, dtype=np.int64)
        self._seed_state = np.array([(seed * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64], dtype=np.uint64)
        self._turn = np.zeros(1, dtype=np.int64)
        self.totals = np.zeros(1, dtype=np.int64)
        self.computed_tokens = np.zeros(1, dtype=np.int64)
        self.clock = np.zeros(1, dtype=np.int64)
        self._random = np.random.default_rng(seed)
        self.nodes = [GPUS_PER_NODE] * (settings.max_gpus // GPUS_PER_NODE)
        if settings.max_gpus % GPUS_PER_NODE:
            self.nodes.append(settings.max_gpus % GPUS_PER_NODE)
        self.free_gpus = list(self.nodes)
        self.pods: list[Pod] = []
        self.gpu_trace = GpuTrace()
        self.asked = first
        self.start_times: dict[int, list[float]] = {}
        for _ in range(first.replicas):
            self._start(first.tensor_parallel_size, start_s=0.0)
        self._settle()

    # -- What the fleet does ---------------------------------------------------------------------------------

    def ask(self, shape: Shape) -> None:
        self.asked = shape
        self._reconcile()

    def advance(self, until_s: float) -> None:
        """To `until_s`, stopping wherever a pod becomes ready or has drained."""
        while self.now_s < until_s:
            soonest = min((pod.ready_s for pod in self.pods if pod.ready_s > self.now_s), default=math.inf)
            stop_s = min(until_s, soonest)
            if any(pod.draining for pod in self.pods):
                stop_s = min(stop_s, self.now_s + 1.0)
            self._run(stop_s)
            self.now_s = stop_s
            self._settle()
            self._reconcile()

    def crash(self, pod: Pod) -> None:
        """The pod is gone, and so is what it held."""
        lost = (self.replica_of == pod.slot) & (
            (self.state == kernel.WAITING) | (self.state == kernel.RUNNING)
        )
        self.state[lost] = kernel.FAILED
        self.outstanding[:, pod.slot] = 0
        self._remove(pod)
        self._reconcile()

    @property
    def gpus(self) -> int:
        return sum(pod.size for pod in self.pods)

    @property
    def idle(self) -> bool:
        done = self.clock[0] >= len(self._arrival_s) and self.held[0] == kernel.NONE
        return bool(done and not self.counts[:, :2].any())

    def serving(self, size: int) -> list[Pod]:
        return [
            pod
            for pod in self.pods
            if pod.size == size and not pod.draining and self.status[pod.slot] == kernel.READY
        ]

    def _run(self, until_s: float) -> None:
        kernel.advance(
            until_s, self.clock, self._arrival_s, self.prompt, self.output, self.generated, self._computed,
            self._held_blocks, self.state, self._following, self.first_token_s, self.done_s, self._router_of,
            self.replica_of, self._head, self._tail, self.held, self.status, self._step_end_s, self._running,
            self._chunk, self.counts, self.outstanding, self._timing, self._knot_tokens, self._knot_s,
            self._knots, self.firsts, self.firsts_count, self.finished, self.finished_count,
            self._seed_state, self._turn, self.totals,
            self.computed_tokens, self.settings.router, self.settings.max_sequences,
            self.settings.max_batched_tokens, self.settings.max_hold_s,
        )  # fmt: skip

    def _settle(self) -> None:
        for pod in list(self.pods):
            starting = self.status[pod.slot] == kernel.STARTING
            if starting and pod.ready_s <= self.now_s:
                self.status[pod.slot] = kernel.READY
                if pod.ready_s > pod.created_s:
                    self.start_times.setdefault(pod.size, []).append(pod.ready_s - pod.created_s)
            if pod.draining and not self.counts[pod.slot, :2].any():
                self._remove(pod)
        self.gpu_trace.add(self.now_s, self.gpus, self.asked.tensor_parallel_size)
        self._run(self.now_s)

    def _reconcile(self) -> None:
        size, wanted = self.asked.tensor_parallel_size, self.asked.replicas
        mine = [pod for pod in self.pods if pod.size == size and not pod.draining]
        others = [pod for pod in self.pods if pod.size != size and not pod.draining]
        if len(mine) > wanted:
            order = sorted(mine, key=lambda pod: (self.status[pod.slot] == kernel.READY, -pod.created_s))
            for pod in order[: len(mine) - wanted]:
                self._drain(pod)
        missing = wanted - len(mine)
        while missing > 0 and self._start(size, start_s=self.settings.start_s):
            missing -= 1
        if others:
            if len(self.serving(size)) >= wanted:
                for pod in others:
                    self._drain(pod)
            elif missing > 0 and not any(pod.draining for pod in self.pods):
                starting = any(self.status[pod.slot] == kernel.STARTING for pod in mine)
                if not starting and (len(others) > 1 or self.serving(size) or len(self.pods) == 1):
                    self._drain(others[0])
        self.gpu_trace.add(self.now_s, self.gpus, size)

    def _drain(self, pod: Pod) -> None:
        if self.status[pod.slot] == kernel.STARTING or not self.counts[pod.slot, :2].any():
            self._remove(pod)
            return
        pod.draining = True
        self.status[pod.slot] = kernel.DRAINING

    def _remove(self, pod: Pod) -> None:
        self.status[pod.slot] = kernel.ABSENT
        self._step_end_s[pod.slot] = np.inf
        self.counts[pod.slot] = 0
        self._head[pod.slot] = self._tail[pod.slot] = kernel.NONE
        self.outstanding[:, pod.slot] = 0
        self.free_gpus[pod.node] += pod.size
        self.pods.remove(pod)

    def _start(self, size: int, *, start_s: float) -> bool:
        """On the fullest node that has room; False when none has."""
        rooms = [(free, node) for node, free in enumerate(self.free_gpus) if free >= size]
        slots = np.flatnonzero(self.status == kernel.ABSENT)
        if not rooms or not len(slots):
            return False
        _, node = min(rooms)
        slot = int(slots[0])
        self.free_gpus[node] -= size
        took_s = start_s * float(self._random.uniform(0.95, 1.05))
        self.pods.append(
            Pod(slot=slot, size=size, node=node, created_s=self.now_s, ready_s=self.now_s + took_s)
        )
        self.status[slot] = kernel.STARTING
        timing = self.settings.timing[size]
        self.counts[slot] = (0, 0, 0, timing.kv_cache_tokens // kernel.BLOCK_TOKENS)
        self._timing[slot] = (
            timing.prefill_attention_s, timing.decode_attention_s, timing.scale, timing.overhead_s
        )  # fmt: skip
        knots = len(timing.knot_tokens)
        self._knots[slot] = knots
        self.size_of_slot[slot] = size
        self._knot_tokens[slot, :knots] = timing.knot_tokens
        self._knot_s[slot, :knots] = timing.knot_s
        return True
