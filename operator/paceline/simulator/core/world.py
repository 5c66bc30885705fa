"""One simulated service: pods that start, serve, drain and stop on nodes of 8 GPUs, and the clock that moves them.

The shape that a policy asks for becomes pods as the fleet would do it: replicas of the asked size are added or
drained; another size is brought up beside the first and the first leaves when it is ready, or, where there
are no GPUs for both, one by one in place. Deterministic by seed, wherever a run stops in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paceline.planner import Shape
from paceline.simulator.core import layout
from paceline.simulator.core.counters import count
from paceline.simulator.core.events import advance
from paceline.simulator.core.kernel import NEVER
from paceline.simulator.core.layout import NONE, Engines, Limits, Requests, Shared
from paceline.simulator.core.pods import GpuTrace, Pod, StartStages
from paceline.simulator.core.traffic import Floats, Ints, Traffic
from paceline_core.drain import QUIET_S
from paceline_core.timing import FRONT_S, StepTiming

GPUS_PER_NODE = 8
MOST_PODS = 160
ROUTERS = 2
UNLIMITED = 1 << 40

Transition = Literal["Surge", "InPlace", "Recreate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    timing: Mapping[int, StepTiming]
    max_gpus: int
    start_s: float | StartStages
    """A number: every start takes that long, ±5 %."""
    max_sequences: int = 256
    max_batched_tokens: int = 8192
    router: int = layout.POWER_OF_TWO
    max_hold_s: float = 240.0
    max_queued: int = UNLIMITED
    """Requests that may wait at one replica; one more is refused with 429, which is a miss."""
    cached_share: float = 0.0
    """Share of a prompt that a warm replica finds in its prefix cache, for all requests alike."""
    warm_tokens: float = 500_000.0
    """Prompt tokens after which a fresh replica finds half of that."""
    transitions: tuple[Transition, ...] = ("Surge", "InPlace")
    unrouting_s: float = 2.0
    stop_s: float = QUIET_S + 5.0
    """From the last stream of a leaving pod until its GPUs are free."""


class World:
    def __init__(self, traffic: Traffic, settings: WorldSettings, *, first: Shape, seed: int) -> None:
        self.traffic = traffic
        self.settings = settings
        self.now_s = 0.0
        self._requests = _requests(traffic, settings)
        self._engines = _engines(settings)
        self._shared = Shared(
            totals=np.zeros(layout.TOTALS, dtype=np.int64),
            random=np.array([(seed * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64], dtype=np.uint64),
            firsts=np.zeros(len(traffic), dtype=np.int64),
            finished=np.zeros(len(traffic), dtype=np.int64),
        )
        self._shared.totals[layout.HELD_FIRST] = self._shared.totals[layout.HELD_LAST] = NONE
        self._limits = Limits(
            max_sequences=settings.max_sequences,
            max_batched_tokens=settings.max_batched_tokens,
            max_queued=settings.max_queued,
            router=settings.router,
            max_hold_s=float(settings.max_hold_s),
            warm_tokens=float(settings.warm_tokens),
        )
        self.size_of_slot = np.zeros(MOST_PODS, dtype=np.int64)
        self._slots = 0
        self._random = np.random.default_rng(seed)
        self.nodes = [GPUS_PER_NODE] * (settings.max_gpus // GPUS_PER_NODE)
        if settings.max_gpus % GPUS_PER_NODE:
            self.nodes.append(settings.max_gpus % GPUS_PER_NODE)
        self.free_gpus = list(self.nodes)
        self.pods: list[Pod] = []
        self.gpu_trace = GpuTrace()
        self.asked = first
        self.start_times: dict[int, list[float]] = {}
        self._images: set[int] = set()
        self._compiled: set[tuple[int, int]] = set()
        for _ in range(first.replicas):
            self._start(first.tensor_parallel_size, at_once=True)
        self._settle()

    # -- What there is to see --------------------------------------------------------------------------------

    @property
    def prompt(self) -> Ints:
        return self._requests.prompt

    @property
    def output(self) -> Ints:
        return self._requests.output

    @property
    def generated(self) -> Ints:
        """Tokens of each request; exact for what does not decode at this moment."""
        return self._requests.generated

    @property
    def state(self) -> layout.Bytes:
        return self._requests.state

    @property
    def first_token_s(self) -> Floats:
        """When the engine had it; NaN: not yet."""
        return self._requests.first_token_s

    def ttft_s(self, which: Ints | slice = slice(None)) -> Floats:
        """As the client sees it, with what is spent outside of the engine's steps; NaN: no first token yet."""
        return np.asarray(FRONT_S + self.first_token_s[which] - self.traffic.arrival_s[which])

    @property
    def done_s(self) -> Floats:
        return self._requests.done_s

    @property
    def replica_of(self) -> Ints:
        return self._requests.replica

    @property
    def status(self) -> layout.Bytes:
        return self._engines.status

    @property
    def counts(self) -> Ints:
        """A row a slot: requests in the batch, in the queue, blocks used, blocks in all, and more (`layout`)."""
        return self._engines.counts

    @property
    def tallies(self) -> Floats:
        """A row a slot: tokens generated, prompt tokens computed and found in the cache, preemptions."""
        return self._engines.tallies

    @property
    def firsts(self) -> Ints:
        """Requests in the order of their first tokens."""
        return self._shared.firsts[: self._shared.totals[layout.FIRSTS]]

    @property
    def finished(self) -> Ints:
        return self._shared.finished[: self._shared.totals[layout.FINISHED]]

    @property
    def arrived(self) -> int:
        return int(self._shared.totals[layout.NEXT_ARRIVAL])

    @property
    def preemptions(self) -> int:
        return int(self._shared.totals[layout.ALL_PREEMPTIONS])

    @property
    def lost(self) -> int:
        """Requests that were shed or failed."""
        return int(self._shared.totals[layout.LOST])

    @property
    def held(self) -> int:
        """Requests at the gate that no replica can take."""
        first = int(self._shared.totals[layout.HELD_FIRST])
        return 0 if first == NONE else int((self.state[first : self.arrived] == layout.HELD).sum())

    @property
    def gpus(self) -> int:
        return sum(pod.size for pod in self.pods)

    @property
    def idle(self) -> bool:
        done = self.arrived >= len(self.traffic) and self._shared.totals[layout.HELD_FIRST] == NONE
        return bool(done and not self.counts[:, :2].any())

    def count(
        self, rows: Floats, *, arrived: Ints, firsts: Ints, done: Ints, good: layout.Flags, known: Floats
    ) -> None:
        """`counters.count` of this service."""
        count(rows, self._requests, arrived, firsts, done, good, self.size_of_slot, self.tallies, known)

    def serving(self, size: int) -> list[Pod]:
        return [
            pod
            for pod in self.pods
            if pod.size == size and not pod.draining and self.status[pod.slot] == layout.READY
        ]

    # -- What the fleet does ---------------------------------------------------------------------------------

    def ask(self, shape: Shape) -> None:
        self.asked = shape
        self._reconcile()

    def advance(self, until_s: float) -> None:
        """To `until_s`, stopping wherever a pod becomes ready, is forgotten by the routers or has drained."""
        while self.now_s < until_s:
            stop_s = until_s
            for pod in self.pods:
                for at_s in (pod.ready_s, pod.unrouted_s, pod.gone_s):
                    if at_s > self.now_s:
                        stop_s = min(stop_s, at_s)
                if self.status[pod.slot] == layout.DRAINING and pod.gone_s == math.inf:
                    stop_s = min(stop_s, self.now_s + 1.0)
            self._run(stop_s)
            self.now_s = stop_s
            self._settle()
            self._reconcile()

    def crash(self, pod: Pod) -> None:
        """The pod is gone, and so is what it held."""
        lost = (self.replica_of == pod.slot) & (
            (self.state == layout.WAITING) | (self.state == layout.RUNNING)
        )
        self.state[lost] = layout.FAILED
        self._shared.totals[layout.LOST] += int(lost.sum())
        self._remove(pod)
        self._reconcile()

    def _run(self, until_s: float) -> None:
        advance(self._requests, self._engines, self._shared, self._limits, self._slots, until_s)

    def _settle(self) -> None:
        for pod in list(self.pods):
            slot = pod.slot
            if self.status[slot] == layout.STARTING and pod.ready_s <= self.now_s:
                self.status[slot] = layout.READY
                if pod.ready_s > pod.created_s:
                    self.start_times.setdefault(pod.size, []).append(pod.ready_s - pod.created_s)
            if not pod.draining:
                continue
            if pod.unrouted_s <= self.now_s:
                self.status[slot] = layout.DRAINING
                if pod.gone_s == math.inf and not self.counts[slot, :2].any():
                    emptied_s = max(float(self._engines.run[slot, layout.RUN_BEGIN_S]), pod.unrouted_s)
                    pod.gone_s = emptied_s + self.settings.stop_s
            if pod.gone_s <= self.now_s:
                self._remove(pod)
        self.gpu_trace.add(self.now_s, self.gpus, self.asked.tensor_parallel_size)
        self._run(self.now_s)

    def _reconcile(self) -> None:
        size, wanted = self.asked.tensor_parallel_size, self.asked.replicas
        mine = [pod for pod in self.pods if pod.size == size and not pod.draining]
        others = [pod for pod in self.pods if pod.size != size and not pod.draining]
        if len(mine) > wanted:
            order = sorted(
                mine, key=lambda pod: (self.status[pod.slot] == layout.READY, -pod.created_s, -pod.slot)
            )
            for pod in order[: len(mine) - wanted]:
                self._drain(pod)
        ways = self.settings.transitions
        if others and ways[0] == "Recreate":
            for pod in others:
                self._drain(pod)
            others = []
        missing = wanted - len(mine)
        while missing > 0 and self._start(size):
            missing -= 1
        if others and len(self.serving(size)) >= wanted:
            for pod in others:
                self._drain(pod)
        elif others and missing > 0 and "InPlace" in ways:
            self._make_room(size, mine, others)
        self.gpu_trace.add(self.now_s, self.gpus, size)

    def _make_room(self, size: int, mine: list[Pod], others: list[Pod]) -> None:
        """In place: one of the old leaves, on the node that then is nearest to room for one of the new."""
        if any(pod.draining for pod in self.pods):
            return
        if any(self.status[pod.slot] == layout.STARTING for pod in mine):
            return
        if len(others) > 1 or self.serving(size) or len(self.pods) == 1:
            self._drain(max(others, key=lambda pod: (self.free_gpus[pod.node], pod.size, -pod.slot)))

    def _drain(self, pod: Pod) -> None:
        if self.status[pod.slot] == layout.STARTING:
            self._remove(pod)
            return
        remaining = len([one for one in self.pods if one.size == pod.size and not one.draining]) - 1
        for one in self.pods:
            # The prefixes that only the leaving replica held have to be computed again elsewhere.
            if one.size == pod.size and one is not pod:
                self._engines.run[one.slot, layout.SEEN_TOKENS] *= remaining / (remaining + 1)
        pod.draining = True
        pod.unrouted_s = self.now_s + self.settings.unrouting_s

    def _remove(self, pod: Pod) -> None:
        self._clear(pod.slot)
        self.status[pod.slot] = layout.ABSENT
        self.free_gpus[pod.node] += pod.size
        self.pods.remove(pod)

    def _clear(self, slot: int) -> None:
        engines = self._engines
        engines.counts[slot] = 0
        for column in (layout.PARTIAL, layout.HEAD, layout.TAIL):
            engines.counts[slot, column] = NONE
        engines.counts[slot, layout.NEXT_FINISH] = NEVER
        engines.run[slot] = 0.0
        engines.run[slot, layout.RUN_END_S] = np.inf
        engines.tallies[slot] = 0.0
        engines.phases[slot] = 0
        engines.outstanding[:, slot] = 0

    def _start(self, size: int, *, at_once: bool = False) -> bool:
        """On the fullest node that has room; False when none has."""
        rooms = [(free, node) for node, free in enumerate(self.free_gpus) if free >= size]
        slots = np.flatnonzero(self.status == layout.ABSENT)
        if not rooms or not len(slots):
            return False
        _, node = min(rooms)
        slot = int(slots[0])
        self._slots = max(self._slots, slot + 1)
        self.free_gpus[node] -= size
        took_s = 0.0 if at_once else self._start_s(node, size)
        self.pods.append(
            Pod(slot=slot, size=size, node=node, created_s=self.now_s, ready_s=self.now_s + took_s)
        )
        self._images.add(node)
        self._compiled.add((node, size))
        self._clear(slot)
        self.status[slot] = layout.STARTING
        self.size_of_slot[slot] = size
        self._set_timing(slot, self.settings.timing[size])
        if at_once:
            self._engines.run[slot, layout.SEEN_TOKENS] = 20 * self.settings.warm_tokens
        return True

    def _start_s(self, node: int, size: int) -> float:
        start = self.settings.start_s
        if isinstance(start, StartStages):
            start = start.took_s(
                image_there=node in self._images, compiled_there=(node, size) in self._compiled
            )
        return start * float(self._random.uniform(0.95, 1.05))

    def _set_timing(self, slot: int, timing: StepTiming) -> None:
        engines = self._engines
        engines.counts[slot, layout.ALL_BLOCKS] = timing.kv_cache_tokens // layout.BLOCK_TOKENS
        engines.timing[slot] = (
            timing.prefill_attention_s, timing.decode_attention_s, timing.scale, timing.overhead_s
        )  # fmt: skip
        knots = len(timing.knot_tokens)
        engines.knots[slot] = knots
        engines.knot_tokens[slot, :knots] = timing.knot_tokens
        engines.knot_s[slot, :knots] = timing.knot_s


def _requests(traffic: Traffic, settings: WorldSettings) -> Requests:
    n = len(traffic)
    return Requests(
        arrival_s=np.ascontiguousarray(traffic.arrival_s, dtype=np.float64),
        prompt=np.maximum(traffic.prompt_tokens, 1).astype(np.int64),
        output=np.maximum(traffic.output_tokens, 1).astype(np.int64),
        cached_share=np.full(n, settings.cached_share),
        cached=np.zeros(n, dtype=np.int64),
        generated=np.zeros(n, dtype=np.int64),
        computed=np.zeros(n, dtype=np.int64),
        finish_step=np.zeros(n, dtype=np.int64),
        earliest_step=np.zeros(n, dtype=np.int64),
        state=np.zeros(n, dtype=np.int8),
        following=np.full(n, NONE, dtype=np.int64),
        first_token_s=np.full(n, np.nan),
        done_s=np.full(n, np.nan),
        router=np.zeros(n, dtype=np.int64),
        replica=np.full(n, NONE, dtype=np.int64),
    )


def _engines(settings: WorldSettings) -> Engines:
    knots = max(len(one.knot_tokens) for one in settings.timing.values())
    run = np.zeros((MOST_PODS, layout.RUNS))
    run[:, layout.RUN_END_S] = np.inf
    return Engines(
        status=np.zeros(MOST_PODS, dtype=np.int8),
        counts=np.zeros((MOST_PODS, layout.COUNTS), dtype=np.int64),
        run=run,
        tallies=np.zeros((MOST_PODS, layout.TALLIES)),
        decoding=np.zeros((MOST_PODS, settings.max_sequences), dtype=np.int64),
        prefilling=np.zeros((MOST_PODS, settings.max_sequences), dtype=np.int64),
        chunk=np.zeros((MOST_PODS, settings.max_sequences), dtype=np.int64),
        phases=np.zeros((MOST_PODS, layout.BLOCK_TOKENS), dtype=np.int64),
        outstanding=np.zeros((ROUTERS, MOST_PODS), dtype=np.int64),
        timing=np.zeros((MOST_PODS, 4)),
        knot_tokens=np.zeros((MOST_PODS, knots)),
        knot_s=np.zeros((MOST_PODS, knots)),
        knots=np.zeros(MOST_PODS, dtype=np.int64),
    )
