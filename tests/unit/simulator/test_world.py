"""Engines against a second implementation written step by step, and what must hold of pods and requests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.planner import Shape
from paceline.simulator.core import kernel
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.world import World, WorldSettings
from paceline_core.timing import StepTiming


def _timing(kv_cache_tokens: int = 400_000, speed: float = 1.0) -> StepTiming:
    return StepTiming(
        knot_tokens=(1, 64, 512, 8192),
        knot_s=(0.008 / speed, 0.009 / speed, 0.03 / speed, 0.4 / speed),
        prefill_attention_s=2e-9,
        decode_attention_s=3e-8,
        kv_cache_tokens=kv_cache_tokens,
    )


def _traffic(n: int, *, seed: int, rate: float, longest: int = 3000) -> Traffic:
    random = np.random.default_rng(seed)
    arrival_s = np.cumsum(random.exponential(1 / rate, size=n))
    return Traffic(
        arrival_s=arrival_s,
        prompt_tokens=random.integers(1, longest, size=n),
        output_tokens=random.integers(1, 250, size=n),
        end_s=float(arrival_s[-1]) + 1.0,
    )


def _world(
    traffic: Traffic,
    *,
    shape: Shape,
    kv_cache_tokens: int = 400_000,
    max_gpus: int = 16,
    router: int = kernel.POWER_OF_TWO,
    seed: int = 0,
) -> World:
    timing = {size: _timing(kv_cache_tokens, size**0.7) for size in (1, 2, 4, 8)}
    world_settings = WorldSettings(timing=timing, max_gpus=max_gpus, start_s=60.0, router=router)
    return World(traffic, world_settings, first=shape, seed=seed)


def _to_the_end(world: World) -> None:
    world.advance(world.traffic.end_s)
    while not world.idle:
        world.advance(world.now_s + 50)


@dataclass
class _Sequence:
    arrival_s: float
    prompt: int
    output: int
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    first_s: float = 0.0
    done_s: float = 0.0


@dataclass
class _SlowEngine:
    """vLLM V1's scheduling, as plain as it can be written."""

    timing: StepTiming
    waiting: list[_Sequence] = field(default_factory=list)
    running: list[_Sequence] = field(default_factory=list)
    preempted: int = 0

    def replay(self, sequences: list[_Sequence]) -> None:
        total = self.timing.kv_cache_tokens // 16
        arrivals = list(sequences)
        now = 0.0
        while arrivals or self.waiting or self.running:
            if not self.waiting and not self.running:
                now = arrivals[0].arrival_s
            while arrivals and arrivals[0].arrival_s <= now:
                self.waiting.append(arrivals.pop(0))
            chunks = self._schedule(total)
            prefills = [(c, one.computed) for one, c in chunks if not (c == 1 and one.computed >= one.prompt)]
            decoding = [one for one, c in chunks if c == 1 and one.computed >= one.prompt]
            now += self.timing.step_s(
                prefills=prefills,
                decodes=len(decoding),
                decode_context_tokens=sum(one.computed for one in decoding),
            )
            for one, chunk in chunks:
                one.computed += chunk
                if one.computed >= one.prompt + one.generated:
                    one.generated += 1
                    if one.generated == 1:
                        one.first_s = now
                    if one.generated == one.output:
                        one.done_s = now
                        one.blocks = 0
                        self.running.remove(one)

    def _schedule(self, total: int) -> list[tuple[_Sequence, int]]:
        budget, preempted = 8192, False
        chunks: list[tuple[_Sequence, int]] = []
        index = 0
        while index < len(self.running):
            one = self.running[index]
            need = min(one.prompt + one.generated - one.computed, budget)
            blocks = -(-(one.computed + need) // 16)
            while sum(each.blocks for each in self.running) + blocks - one.blocks > total:
                victim = self.running.pop()
                victim.blocks, victim.computed = 0, 0
                self.waiting.insert(0, victim)
                preempted = True
                self.preempted += 1
                if victim is one:
                    break
            else:
                one.blocks = blocks
                chunks.append((one, need))
                budget -= need
                index += 1
                continue
            break
        while not preempted and budget and self.waiting and len(self.running) < 256:
            one = self.waiting[0]
            need = min(one.prompt + one.generated - one.computed, budget)
            blocks = -(-need // 16)
            if sum(each.blocks for each in self.running) + blocks > total:
                break
            self.waiting.pop(0)
            one.blocks = blocks
            self.running.append(one)
            chunks.append((one, need))
            budget -= need
        return chunks


@pytest.mark.parametrize(
    ("n", "rate", "kv_cache_tokens"),
    [
        pytest.param(1500, 8.0, 400_000, id="light"),
        pytest.param(1500, 40.0, 400_000, id="saturated"),
        pytest.param(1500, 20.0, 12_000, id="preempting"),
    ],
)
def test_compiled_steps_are_the_steps_of_the_plain_engine(n: int, rate: float, kv_cache_tokens: int) -> None:
    traffic = _traffic(n, seed=3, rate=rate)
    world = _world(traffic, shape=Shape(tensor_parallel_size=1, replicas=1), kv_cache_tokens=kv_cache_tokens)
    _to_the_end(world)
    slow = _SlowEngine(timing=_timing(kv_cache_tokens))
    sequences = [
        _Sequence(arrival_s=float(a), prompt=int(p), output=int(o))
        for a, p, o in zip(traffic.arrival_s, traffic.prompt_tokens, traffic.output_tokens, strict=True)
    ]
    slow.replay(sequences)
    assert np.max(np.abs(world.first_token_s - [one.first_s for one in sequences])) < 1e-6
    assert np.max(np.abs(world.done_s - [one.done_s for one in sequences])) < 1e-6
    assert int(world.totals[0]) == slow.preempted
    if kv_cache_tokens < 20_000:
        assert slow.preempted > 100


@pytest.mark.parametrize("router", [kernel.POWER_OF_TWO, kernel.SHORTEST_QUEUE, kernel.ROUND_ROBIN])
def test_a_router_spreads_the_load_and_loses_nothing(router: int) -> None:
    traffic = _traffic(4000, seed=1, rate=40.0)
    world = _world(traffic, shape=Shape(tensor_parallel_size=1, replicas=5), router=router)
    _to_the_end(world)
    assert np.all(world.state == kernel.DONE)
    share = np.bincount(world.replica_of, minlength=5)[:5] / 4000
    assert share.min() > 0.15


def test_pooling_by_two_choices_beats_round_robin() -> None:
    traffic = _traffic(6000, seed=2, rate=50.0)
    late = {}
    for router in (kernel.POWER_OF_TWO, kernel.ROUND_ROBIN):
        world = _world(traffic, shape=Shape(tensor_parallel_size=1, replicas=4), router=router)
        _to_the_end(world)
        late[router] = float(np.quantile(world.first_token_s - traffic.arrival_s, 0.95))
    assert late[kernel.POWER_OF_TWO] < late[kernel.ROUND_ROBIN]


def test_the_same_seed_gives_the_same_run() -> None:
    runs = []
    for stops in ([200.0], [20.0, 21.0, 57.3, 200.0]):
        world = _world(_traffic(2000, seed=5, rate=12.0), shape=Shape(tensor_parallel_size=2, replicas=3))
        for stop in stops:
            world.advance(stop)
        _to_the_end(world)
        runs.append(world.done_s)
    assert np.array_equal(runs[0], runs[1])


def test_a_surge_loses_nothing_and_both_sizes_are_paid_for_while_they_overlap() -> None:
    world = _world(_traffic(3000, seed=4, rate=15.0), shape=Shape(tensor_parallel_size=1, replicas=4))
    world.advance(50)
    world.ask(Shape(tensor_parallel_size=4, replicas=1))
    assert world.gpus == 8
    _to_the_end(world)
    assert np.all(world.state == kernel.DONE)
    assert world.gpus == 4


def test_without_gpus_for_both_a_size_is_replaced_in_place() -> None:
    world = _world(
        _traffic(3000, seed=4, rate=15.0), shape=Shape(tensor_parallel_size=2, replicas=4), max_gpus=8
    )
    world.advance(50)
    world.ask(Shape(tensor_parallel_size=4, replicas=2))
    most = 0
    while world.now_s < 1200:
        world.advance(world.now_s + 5)
        most = max(most, world.gpus)
    assert most <= 8
    assert {pod.size for pod in world.pods} == {4}
    assert len(world.pods) == 2


def test_a_crash_loses_what_was_inside_and_the_pod_comes_back() -> None:
    world = _world(_traffic(3000, seed=4, rate=15.0), shape=Shape(tensor_parallel_size=1, replicas=3))
    world.advance(50)
    victim = world.pods[0]
    inside = int(world.counts[victim.slot, :2].sum())
    world.crash(victim)
    _to_the_end(world)
    assert int((world.state == kernel.FAILED).sum()) == inside > 0
    assert len(world.serving(1)) == 3


def test_what_no_replica_takes_is_held_and_then_fails() -> None:
    world = _world(_traffic(200, seed=4, rate=2.0), shape=Shape(tensor_parallel_size=1, replicas=1))
    world.crash(world.pods[0])
    world.advance(30)
    assert np.all(world.state[: int(world.clock[0])] == kernel.HELD)
    _to_the_end(world)
    assert np.all(world.state == kernel.DONE)
    assert world.first_token_s[0] > 50


def test_gpu_seconds_count_from_the_start_of_a_pod() -> None:
    world = _world(_traffic(10, seed=4, rate=0.1), shape=Shape(tensor_parallel_size=2, replicas=1))
    world.advance(100)
    world.ask(Shape(tensor_parallel_size=2, replicas=2))
    world.advance(200)
    world.ask(Shape(tensor_parallel_size=2, replicas=1))
    world.advance(300)
    assert world.gpu_trace.gpu_seconds(until_s=300) == pytest.approx(2 * 300 + 2 * 100, abs=40)


_ASKS = st.lists(
    st.tuples(st.floats(1.0, 90.0), st.sampled_from([1, 2, 4, 8]), st.integers(1, 12)), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(asks=_ASKS, max_gpus=st.sampled_from([8, 12, 24]))
def test_whatever_is_asked_no_node_is_overfull_and_no_request_is_lost_or_doubled(
    asks: list[tuple[float, int, int]], max_gpus: int
) -> None:
    traffic = _traffic(1200, seed=9, rate=6.0)
    world = _world(traffic, shape=Shape(tensor_parallel_size=1, replicas=2), max_gpus=max_gpus)
    for wait_s, size, n in asks:
        world.advance(world.now_s + wait_s)
        if size <= min(max_gpus, 8):
            world.ask(Shape(tensor_parallel_size=size, replicas=n))
        used = [0] * len(world.nodes)
        for pod in world.pods:
            used[pod.node] += pod.size
        assert all(
            u + free == total for u, free, total in zip(used, world.free_gpus, world.nodes, strict=True)
        )
        assert min(world.free_gpus) >= 0
    _to_the_end(world)
    finished = world.finished[: int(world.finished_count[0])]
    assert len(set(finished.tolist())) == len(finished)
    assert np.all((world.state == kernel.DONE) | (world.state == kernel.FAILED))
    assert int((world.state == kernel.FAILED).sum()) == 0
    assert np.all(world.generated == world.output)
