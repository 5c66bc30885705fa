"""Prometheus away for long: gates are asked themselves, and engines once more comes in than before."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from paceline.metrics import MetricsSource, ServiceFacts, ServiceMetrics
from tests.integration.metrics.world import KEY, World

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.slow]


async def ticks(one: World, source: MetricsSource, *, count: int = 6, every_s: float = 0.5) -> ServiceMetrics:
    for _ in range(count):
        metrics = await one.collect(source)
        await asyncio.sleep(every_s)
    return metrics


async def test_the_load_stays_known_while_prometheus_is_away(one: World) -> None:
    async with one.source(direct_after_s=1.0) as source:
        async with one.load(rate_per_s=8):
            await asyncio.sleep(8)
            known = await one.collect(source)
            one.api.drop = True
            at_once = await one.collect(source)
            later = await ticks(one, source)
        assert known.traffic.requests_per_s.value == pytest.approx(8, rel=0.2)
        assert at_once.source == "None"
        assert at_once.traffic.requests_per_s.value is None
        assert later.source == "Pods"
        assert later.availability.available is False
        assert later.availability.reason == "PrometheusUnreachable"
        assert "asked directly" in later.availability.message
        assert later.traffic.requests_per_s.trust == "Fresh"
        assert later.traffic.requests_per_s.value == pytest.approx(8, rel=0.3)
        assert later.traffic.held_requests.fresh == 0.0
        # No more than before: the engines are left alone.
        assert later.engines[1].running.trust == "Missing"
        async with one.load(rate_per_s=24):
            risen = await ticks(one, source, count=12)
        assert risen.traffic.requests_per_s.value == pytest.approx(24, rel=0.3)
        for size in (1, 2):
            figures = risen.engines[size]
            assert figures.running.trust == "Fresh"
            assert (figures.decode_tokens_per_s.fresh or 0.0) > 0
            assert figures.time_to_first_token.mean_s.trust == "Fresh"
        assert risen.attainment.trust == "Fresh"
        assert risen.traffic.output is not None
        assert risen.traffic.output.mean_tokens == pytest.approx(8, abs=0.1)
        one.heal()
        back = await one.collect(source)
        assert back.source == "Prometheus"
        assert back.availability.available is True


async def test_pods_say_the_same_as_prometheus(one: World) -> None:
    async with (
        one.source() as source,
        one.source(prometheus=None, direct_after_s=0.0) as direct,
        one.load(rate_per_s=16),
    ):
        themselves = await ticks(one, direct, count=14)
        told = await one.collect(source)
    assert themselves.source == "Pods"
    assert themselves.availability.reason == "NotConfigured"
    for here, there in (
        (themselves.traffic.requests_per_s, told.traffic.requests_per_s),
        (themselves.attainment, told.attainment),
        (themselves.engines[1].decode_tokens_per_s, told.engines[1].decode_tokens_per_s),
        (themselves.engines[2].prefill_tokens_per_s, told.engines[2].prefill_tokens_per_s),
        (themselves.engines[1].inter_token_latency.mean_s, told.engines[1].inter_token_latency.mean_s),
        (themselves.client_time_to_first_token.mean_s, told.client_time_to_first_token.mean_s),
    ):
        assert here.trust == there.trust == "Fresh"
        assert here.value == pytest.approx(there.value, rel=0.3)
    assert themselves.engines[1].kv_cache_tokens == told.engines[1].kv_cache_tokens


async def test_one_pod_that_prometheus_lost_is_found_directly(one: World) -> None:
    """Prometheus answers, but lacks a gate for long: the service is asked, and knows its load."""
    one.scrape([pod for pod in one.pods if pod.name != "gate-2"])
    async with one.source(direct_after_s=1.0) as source, one.load(rate_per_s=8):
        found = await ticks(one, source, count=14)
    assert found.source == "Pods"
    assert found.availability.reason == "PodsMissing"
    assert found.traffic.requests_per_s.value == pytest.approx(8, rel=0.3)


async def test_a_gate_that_does_not_answer_either(one: World) -> None:
    one.api.drop = True
    away = replace(one.pod("gate-2"), ip="127.0.0.9")
    pods = [away if pod.name == away.name else pod for pod in one.pods]
    async with one.source(direct_after_s=0.0, direct_timeout_s=0.5) as source:
        for _ in range(3):
            found = await one.collect(source, pods)
            await asyncio.sleep(0.3)
    assert found.traffic.requests_per_s.value is None
    assert "gate-2" in found.availability.message
    assert any("do not answer (gate-2)" in note for note in found.notes)


async def test_a_service_whose_load_nobody_needs_is_not_asked(one: World) -> None:
    one.api.drop = True
    facts = ServiceFacts(pods=one.pods, load_must_be_known=False)
    async with one.source(direct_after_s=0.0) as source:
        for _ in range(2):
            found = (await source.collect({KEY: facts}))[KEY]
    assert found.source == "None"
