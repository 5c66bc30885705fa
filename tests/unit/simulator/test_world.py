"""What must hold of routers, pods and requests in a simulated service."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.planner import Shape
from paceline.simulator.core import counters, layout
from paceline.simulator.core.pods import StartStages
from paceline.simulator.core.scrapes import Scrapes
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.world import World, WorldSettings
from paceline_core.timing import FRONT_S, StepTiming


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
    router: int = layout.POWER_OF_TWO,
    seed: int = 0,
) -> World:
    timing = {size: _timing(kv_cache_tokens, size**0.7) for size in (1, 2, 4, 8)}
    world_settings = WorldSettings(timing=timing, max_gpus=max_gpus, start_s=60.0, router=router)
    return World(traffic, world_settings, first=shape, seed=seed)


def _to_the_end(world: World) -> None:
    world.advance(world.traffic.end_s)
    while not world.idle:
        world.advance(world.now_s + 50)


@pytest.mark.parametrize("router", [layout.POWER_OF_TWO, layout.SHORTEST_QUEUE, layout.ROUND_ROBIN])
def test_a_router_spreads_the_load_and_loses_nothing(router: int) -> None:
    traffic = _traffic(4000, seed=1, rate=40.0)
    world = _world(traffic, shape=Shape(tensor_parallel_size=1, replicas=5), router=router)
    _to_the_end(world)
    assert np.all(world.state == layout.DONE)
    share = np.bincount(world.replica_of, minlength=5)[:5] / 4000
    assert share.min() > 0.15


def test_pooling_by_two_choices_beats_round_robin() -> None:
    traffic = _traffic(6000, seed=2, rate=50.0)
    late = {}
    for router in (layout.POWER_OF_TWO, layout.ROUND_ROBIN):
        world = _world(traffic, shape=Shape(tensor_parallel_size=1, replicas=4), router=router)
        _to_the_end(world)
        late[router] = float(np.quantile(world.first_token_s - traffic.arrival_s, 0.95))
    assert late[layout.POWER_OF_TWO] < late[layout.ROUND_ROBIN]


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
    assert np.all(world.state == layout.DONE)
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
    assert int((world.state == layout.FAILED).sum()) == inside > 0
    assert len(world.serving(1)) == 3


def test_what_no_replica_takes_is_held_and_then_fails() -> None:
    world = _world(_traffic(200, seed=4, rate=2.0), shape=Shape(tensor_parallel_size=1, replicas=1))
    world.crash(world.pods[0])
    world.advance(30)
    assert np.all(world.state[: world.arrived] == layout.HELD)
    _to_the_end(world)
    assert np.all(world.state == layout.DONE)
    assert world.first_token_s[0] > 50


def test_gpu_seconds_count_from_the_start_of_a_pod() -> None:
    world = _world(_traffic(10, seed=4, rate=0.1), shape=Shape(tensor_parallel_size=2, replicas=1))
    world.advance(100)
    world.ask(Shape(tensor_parallel_size=2, replicas=2))
    world.advance(200)
    world.ask(Shape(tensor_parallel_size=2, replicas=1))
    world.advance(300)
    assert world.gpu_trace.gpu_seconds(until_s=300) == pytest.approx(2 * 300 + 2 * 100, abs=40)


def _fixed(n: int, *, gap_s: np.ndarray | float, prompt: int, output: int) -> Traffic:
    arrival_s = np.cumsum(np.broadcast_to(gap_s, n))
    return Traffic(
        arrival_s=arrival_s,
        prompt_tokens=np.full(n, prompt),
        output_tokens=np.full(n, output),
        end_s=float(arrival_s[-1]) + 1.0,
    )


def test_a_lone_request_takes_what_the_timing_model_says() -> None:
    world = _world(
        _fixed(5, gap_s=100.0, prompt=1000, output=101), shape=Shape(tensor_parallel_size=1, replicas=1)
    )
    _to_the_end(world)
    timing = _timing()
    first_s = timing.step_s(prefills=[(1000, 0)])
    rest_s = sum(timing.step_s(decodes=1, decode_context_tokens=1000 + i) for i in range(1, 101))
    assert world.ttft_s() == pytest.approx(np.full(5, FRONT_S + first_s), abs=1e-9)
    assert world.done_s - world.first_token_s == pytest.approx(np.full(5, rest_s), abs=1e-9)


def test_scrapes_count_the_ttft_that_clients_see() -> None:
    traffic = _traffic(50, seed=4, rate=2.0)
    world = _world(traffic, shape=Shape(tensor_parallel_size=1, replicas=1))
    scrapes = Scrapes(world=world, judge=lambda prompt, *_: np.ones(len(prompt), dtype=bool), every_s=10.0)
    scrapes.take()
    _to_the_end(world)
    scrapes.take()
    increase = scrapes.increase(world.now_s)
    assert increase is not None
    assert increase[counters.TTFT_SUM] == pytest.approx(world.ttft_s().sum())
    assert increase[counters.REQUEST_SUM] == pytest.approx((FRONT_S + world.done_s - traffic.arrival_s).sum())


def test_counters_and_histograms_hold_every_request_once() -> None:
    world = _world(_traffic(400, seed=5, rate=4.0), shape=Shape(tensor_parallel_size=1, replicas=3))
    good = np.random.default_rng(0).random(400) < 0.7
    scrapes = Scrapes(
        world=world, judge=lambda prompt, *_: good[: len(prompt)], every_s=10.0, gone=((20.0, 60.0),)
    )
    while not world.idle:
        world.advance(world.now_s + 10.0)
        scrapes.take()
    row = scrapes._rows[0]
    only_at_the_gate = [counters.ARRIVALS, counters.ARRIVED_PROMPT, *range(counters.PROMPT, counters.OUTPUT)]
    assert np.array_equal(np.delete(row, only_at_the_gate), np.delete(scrapes._rows[1], only_at_the_gate))
    ttft_s, several = world.ttft_s(), world.output > 1
    tpot_s = (world.done_s - world.first_token_s)[several] / (world.output[several] - 1)
    for first, edges, values in (
        (counters.TTFT, counters.TTFT_EDGES_S, ttft_s),
        (counters.TPOT, counters.TPOT_EDGES_S, tpot_s),
        (counters.PROMPT, counters.LENGTH_EDGES, world.prompt),
        (counters.OUTPUT, counters.LENGTH_EDGES, world.output),
    ):
        expected = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
        assert row[first : first + len(edges) + 1].tolist() == expected.tolist()
    assert row[counters.TPOT_SUM] == pytest.approx(tpot_s.sum())
    assert row[counters.GENERATED] == world.output.sum()
    assert row[counters.COMPUTED] + row[counters.CACHED] >= world.prompt.sum()
    assert [row[c] for c in (counters.ARRIVALS, counters.FIRSTS, counters.FINISHED, counters.JUDGED)] == [
        400
    ] * 4
    assert scrapes.missed == 400 - row[counters.GOOD]


def test_exact_quantiles_are_those_of_the_requests_and_buckets_are_coarse() -> None:
    world = _world(_traffic(400, seed=5, rate=4.0), shape=Shape(tensor_parallel_size=1, replicas=3))
    found = {
        exact: Scrapes(world=world, judge=lambda prompt, *_: prompt > 0, every_s=10.0, exact=exact)
        for exact in (True, False)
    }
    for scrapes in found.values():
        scrapes.take()
    _to_the_end(world)
    for scrapes in found.values():
        scrapes.take()
    truth_s = float(np.quantile(world.ttft_s(), 0.99))
    assert found[True].latency_s("ttft", 0.99, world.now_s) == pytest.approx(truth_s)
    assert found[False].latency_s("ttft", 0.99, world.now_s) != pytest.approx(truth_s, rel=0.01)
    several = world.output > 1
    tpot_s = (world.done_s - world.first_token_s)[several] / (world.output[several] - 1)
    assert found[True].latency_s("tpot", 0.5, world.now_s) == pytest.approx(np.quantile(tpot_s, 0.5))


def test_prompts_one_at_a_time_queue_as_md1_says() -> None:
    n, load = 40_000, 0.7
    timing = _timing()
    service_s = timing.step_s(prefills=[(1000, 0)])
    gaps = np.random.default_rng(8).exponential(service_s / load, size=n)
    settings = WorldSettings(timing={1: timing}, max_gpus=1, start_s=60.0, max_sequences=1)
    world = World(
        _fixed(n, gap_s=gaps, prompt=1000, output=1),
        settings,
        first=Shape(tensor_parallel_size=1, replicas=1),
        seed=0,
    )
    _to_the_end(world)
    waited_s = float((world.first_token_s - world.traffic.arrival_s).mean()) - service_s
    assert waited_s == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.1)


def test_a_full_queue_sheds_and_says_so() -> None:
    settings = WorldSettings(
        timing={1: _timing()}, max_gpus=1, start_s=60.0, max_sequences=4, max_batched_tokens=512, max_queued=3
    )
    first = Shape(tensor_parallel_size=1, replicas=1)
    world = World(_traffic(400, seed=1, rate=20.0), settings, first=first, seed=0)
    most = 0
    while not world.idle:
        world.advance(world.now_s + 0.5)
        most = max(most, int(world.counts[0, :2].sum()))
    shed = int((world.state == layout.SHED).sum())
    assert most == 7
    assert world.lost == shed > 0
    assert int((world.state == layout.DONE).sum()) == 400 - shed


def test_a_fresh_replica_has_a_cold_prefix_cache_and_a_scale_down_cools_the_rest() -> None:
    settings = WorldSettings(
        timing={1: _timing()}, max_gpus=8, start_s=60.0, cached_share=0.5, warm_tokens=100_000
    )
    traffic = _fixed(3000, gap_s=0.5, prompt=1600, output=5)
    world = World(traffic, settings, first=Shape(tensor_parallel_size=1, replicas=2), seed=0)
    world.advance(100.0)
    warm = world.tallies[:2, layout.CACHED_PROMPT_TOKENS].sum() / (200 * 1600)
    assert 0.4 < warm < 0.5
    world.ask(Shape(tensor_parallel_size=1, replicas=3))
    world.advance(180.0)
    new = world.tallies[2]
    cold = new[layout.CACHED_PROMPT_TOKENS] / new[: layout.CACHED_PROMPT_TOKENS + 1][1:].sum()
    assert cold < 0.3
    before = world.tallies.copy()
    world.ask(Shape(tensor_parallel_size=1, replicas=1))
    world.advance(183.0)
    world.advance(200.0)
    after = world.tallies[0] - before[0]
    assert after[layout.CACHED_PROMPT_TOKENS] / after[1:3].sum() < warm


def test_a_leaving_pod_takes_what_is_still_sent_and_holds_its_gpus_until_it_has_stopped() -> None:
    world = _world(_traffic(2000, seed=4, rate=15.0), shape=Shape(tensor_parallel_size=1, replicas=3))
    world.advance(50)
    world.ask(Shape(tensor_parallel_size=1, replicas=2))
    leaving = next(pod for pod in world.pods if pod.draining)
    world.advance(51.9)
    assert world.traffic.arrival_s[world.replica_of == leaving.slot].max() > 50
    while leaving in world.pods:
        world.advance(world.now_s + 0.25)
    mine = world.replica_of == leaving.slot
    assert np.all(world.state[mine] == layout.DONE)
    assert world.traffic.arrival_s[mine].max() < 52
    stop_s = world.settings.stop_s
    assert stop_s <= world.now_s - max(float(world.done_s[mine].max()), 52.0) < stop_s + 0.3


def test_recreate_stops_the_old_before_it_starts_the_new() -> None:
    settings = WorldSettings(
        timing={size: _timing() for size in (2, 4)}, max_gpus=16, start_s=60.0, transitions=("Recreate",)
    )
    world = World(
        _traffic(500, seed=4, rate=2.0), settings, first=Shape(tensor_parallel_size=2, replicas=2), seed=0
    )
    world.advance(50)
    world.ask(Shape(tensor_parallel_size=4, replicas=1))
    _to_the_end(world)
    assert np.all(world.state == layout.DONE)
    assert [pod.size for pod in world.pods] == [4]


def test_a_second_start_on_a_node_finds_image_and_compiled_code() -> None:
    stages = StartStages(image_s=100.0, compile_s=50.0, weights_s=30.0)
    settings = WorldSettings(timing={1: _timing()}, max_gpus=8, start_s=stages)
    world = World(
        _fixed(2, gap_s=1000.0, prompt=10, output=1),
        settings,
        first=Shape(tensor_parallel_size=1, replicas=0),
        seed=0,
    )
    for replicas in (1, 2):
        world.ask(Shape(tensor_parallel_size=1, replicas=replicas))
        world.advance(world.now_s + 300)
    assert world.start_times[1] == pytest.approx([200.0, 50.0], rel=0.06)


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
    finished = world.finished
    assert len(set(finished.tolist())) == len(finished)
    assert np.all((world.state == layout.DONE) | (world.state == layout.FAILED))
    assert int((world.state == layout.FAILED).sum()) == 0
    assert np.all(world.generated == world.output)
