"""What a real Prometheus says of real pods, against what was really sent."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import aiohttp
import pytest

from paceline.metrics import PrometheusSettings, ServiceMetrics
from paceline.metrics.histogram import quantile
from paceline.metrics.prometheus import Prometheus
from paceline.planner import Figure, Lengths
from tests.integration.metrics.world import World, available, eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_figures_are_those_of_the_load(one: World) -> None:
    window_s = one.rules.window_s

    def of_the_load(metrics: ServiceMetrics) -> None:
        assert metrics.notes == ()
        assert metrics.source == "Prometheus"
        assert metrics.traffic.requests_per_s.trust == "Fresh"
        assert metrics.traffic.requests_per_s.value == pytest.approx(16, rel=0.1)
        assert metrics.traffic.requests_per_s.samples == pytest.approx(16 * window_s, rel=0.1)
        assert metrics.attainment.trust == "Fresh"
        assert metrics.attainment.value is not None
        assert 0.5 < metrics.attainment.value <= 1.0
        output = metrics.traffic.output
        assert output is not None
        assert output.mean_tokens == pytest.approx(8, abs=0.1)
        assert _share_at_or_below(output, 8) == pytest.approx(1.0, abs=0.01)
        small, large = metrics.engines[1], metrics.engines[2]
        decoded = [figures.decode_tokens_per_s.value or 0.0 for figures in (small, large)]
        assert sum(decoded) == pytest.approx(16 * 8, rel=0.2)
        assert small.kv_cache_tokens == 64 * 2048
        for figures in (small, large):
            assert figures.running.trust == "Fresh"
            assert figures.inter_token_latency.mean_s.trust == "Fresh"
            assert figures.inter_token_latency.mean_s.value == pytest.approx(0.011, rel=2.0)
        paces = metrics.pod_inter_token_latency
        assert set(paces) == set(one.engines)
        assert {pace.trust for pace in paces.values()} == {"Fresh"}
        assert sum(pace.samples or 0.0 for pace in paces.values()) == pytest.approx(
            16 * 7 * window_s, rel=0.2
        )
        alone, of_its_size = paces["engine-c"].value, large.inter_token_latency.mean_s.value
        assert alone == pytest.approx(of_its_size, rel=0.1), "the only pod of its size is the size"
        seen, engine = metrics.client_time_to_first_token.p50_s, small.time_to_first_token.p50_s
        assert seen.trust == engine.trust == "Fresh"
        assert seen.value is not None
        assert engine.value is not None
        assert seen.value >= engine.value * 0.5
        known = (metrics.traffic.requests_per_s, small.running, metrics.attainment)
        ages = [figure.age_s for figure in known]
        assert all(age is not None and 0 <= age < one.rules.stale_after_s for age in ages)

    async with one.load(rate_per_s=16) as loops:
        # The window must hold nothing but the load, and all of it.
        await asyncio.sleep(window_s)
        await one.eventually(of_the_load)
        summaries = [loop.live() for loop in loops]
    assert not any(live.failed for live in summaries)


async def test_without_load_rates_are_zero_and_latencies_unknown(one: World) -> None:
    def quiet(metrics: ServiceMetrics) -> None:
        available(metrics)
        rate = metrics.traffic.requests_per_s
        assert (rate.value, rate.trust) == (0.0, "Fresh")
        assert metrics.engines[1].time_to_first_token.p50_s.value is None
        assert metrics.traffic.prompt is None

    await one.eventually(quiet)


async def test_quantiles_are_prometheus_own(one: World) -> None:
    prometheus = Prometheus(PrometheusSettings(url=one.api.url))
    name, shares = "vllm:time_to_first_token_seconds_bucket", (0.1, 0.5, 0.9, 0.95, 0.99)

    async def buckets() -> dict[float, float]:
        rows = (await prometheus.query(f"sum by (le) ({name})")).rows
        return {float(row.labels["le"]): row.value for row in rows}

    async def both() -> tuple[list[float | None], list[float]] | None:
        """Ours and theirs, of the same buckets; None where a scrape came in between, or not all of the load is there."""
        before = await buckets()
        answers = [await prometheus.query(f"histogram_quantile({q}, sum by (le) ({name}))") for q in shares]
        if before != await buckets() or before.get(math.inf, 0.0) <= 20:
            return None
        return [quantile(q, before) for q in shares], [answer.rows[0].value for answer in answers]

    def agree(found: tuple[list[float | None], list[float]] | None) -> None:
        assert found is not None
        ours, theirs = found
        assert ours == pytest.approx(theirs, rel=1e-9)

    try:
        async with one.load(rate_per_s=20):
            await asyncio.sleep(4)
        await eventually(both, agree)
    finally:
        await prometheus.close()


async def test_load_that_bypasses_the_gates_contradicts_them(one: World) -> None:
    """An engine that answers clients directly: what the gates count is not the load."""
    pod = one.pod("engine-c")
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}

    async def bypass() -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                for _ in range(4):
                    async with http.post(f"http://{pod.ip}:8000/v1/chat/completions", json=body) as answer:
                        assert answer.status == 200
                await asyncio.sleep(0.1)

    def contradicted(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "Contradicted"
        assert metrics.traffic.requests_per_s.trust == "Contradicted"
        assert metrics.traffic.requests_per_s.fresh is None

    bypassing = asyncio.create_task(bypass())
    try:
        await one.eventually(contradicted)
    finally:
        bypassing.cancel()
        await asyncio.gather(bypassing, return_exceptions=True)


async def test_requests_that_wait_for_an_engine_are_seen(one: World) -> None:
    gate = one.gates[0]

    async def attempt() -> tuple[float, Figure]:
        """The most that were seen held while ten requests wait, and what became of their attainment."""
        await one.eventually(nobody_asks)
        for worker in sorted(await gate.listed()):
            await gate.router_post("remove_worker", worker=worker)
        asked = [asyncio.create_task(gate.ask()) for _ in range(10)]
        most = 0.0
        async with one.source() as source:
            while not all(task.done() for task in asked):
                held = (await one.collect(source)).traffic.held_requests
                most = max(most, held.fresh or 0.0)
                await asyncio.sleep(0.1)
        assert [task.result()[0] for task in asked] == [200] * 10
        await asyncio.sleep(2 * one.scrape_s)
        return most, (await one.look()).attainment

    def seen_and_counted(found: tuple[float, Figure]) -> None:
        most, attainment = found
        assert most == 10
        # Answered well, and too late: the wait counts.
        assert attainment.value == 0.0
        assert attainment.samples == pytest.approx(10, rel=0.3)

    # The gate puts its workers back within seconds: a hold that falls between two scrapes is tried again.
    await eventually(attempt, seen_and_counted)


async def test_an_engine_that_dies_makes_misses_and_begins_anew(one: World) -> None:
    """Its own counts die with it: the gate counts what was lost, and no rate falls below zero."""
    gate, dying = one.gates[0], one.engines["engine-c"].process
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 1000,
        "ignore_eos": True,
        "stream": True,
    }

    async def ask() -> bytes:
        async with gate.session.post(f"{gate.url}/v1/chat/completions", json=body) as answer:
            return await answer.read()

    await one.eventually(nobody_asks)
    asked = [asyncio.create_task(ask()) for _ in range(20)]
    await asyncio.sleep(1.0)
    await dying.stop()
    try:
        gone = replace(one.pod("engine-c"), deleting=True)
        pods = [gone if pod.name == gone.name else pod for pod in one.pods]

        def missed(metrics: ServiceMetrics) -> None:
            ended = [task.result() for task in asked if task.done()]
            lost = sum(b'"code":"engine_lost"' in answer for answer in ended)
            assert 0 < lost < 20
            assert metrics.attainment.value == 0.0
            assert metrics.attainment.samples == pytest.approx(lost, rel=0.4)

        await one.eventually(missed, pods=pods)
        await asyncio.gather(*asked)
    finally:
        dying.start()

    def from_the_start(metrics: ServiceMetrics) -> None:
        available(metrics)
        figures = metrics.engines[2]
        assert figures.decode_tokens_per_s.value is not None
        assert 0 < figures.decode_tokens_per_s.value < 100

    async with one.load(rate_per_s=8):
        await one.eventually(from_the_start)


def nobody_asks(metrics: ServiceMetrics) -> None:
    assert metrics.traffic.requests_per_s.fresh == 0.0
    assert metrics.attainment.value is None


def _share_at_or_below(lengths: Lengths, tokens: float) -> float:
    below = sum(
        count for edge, count in zip(lengths.upper_tokens, lengths.counts, strict=True) if edge <= tokens
    )
    return below / sum(lengths.counts)
