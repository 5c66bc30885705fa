"""Prometheus away for long: gates are asked themselves, and engines once more comes in than before."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from paceline.metrics import ServiceFacts, ServiceMetrics
from tests.integration.metrics.world import KEY, World, available, eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")


def rate(metrics: ServiceMetrics, expected: float, *, rel: float = 0.3) -> None:
    assert metrics.traffic.requests_per_s.trust == "Fresh"
    assert metrics.traffic.requests_per_s.value == pytest.approx(expected, rel=rel)


def asked_directly(metrics: ServiceMetrics) -> None:
    assert metrics.source == "Pods"
    assert metrics.availability.available is False
    assert metrics.availability.reason == "PrometheusUnreachable"
    assert "asked directly" in metrics.availability.message
    rate(metrics, 8)
    assert metrics.traffic.held_requests.fresh == 0.0
    # No more than before: the engines are left alone.
    assert metrics.engines[1].running.trust == "Missing"


def engines_too(metrics: ServiceMetrics) -> None:
    rate(metrics, 24)
    for size in (1, 2):
        figures = metrics.engines[size]
        assert figures.running.trust == "Fresh"
        assert (figures.decode_tokens_per_s.fresh or 0.0) > 0
        assert figures.time_to_first_token.mean_s.trust == "Fresh"
    assert metrics.attainment.trust == "Fresh"
    assert metrics.traffic.output is not None
    assert metrics.traffic.output.mean_tokens == pytest.approx(8, abs=0.1)


async def test_the_load_stays_known_while_prometheus_is_away(one: World) -> None:
    async with one.source(direct_after_s=1.0) as source:
        async with one.load(rate_per_s=8):
            await asyncio.sleep(one.rules.window_s)
            await one.eventually(lambda seen: rate(seen, 8, rel=0.2), source=source)
            one.api.drop = True
            at_once = await one.collect(source)
            assert at_once.source == "None"
            assert at_once.traffic.requests_per_s.value is None
            await one.eventually(asked_directly, source=source)
        async with one.load(rate_per_s=24):
            await one.eventually(engines_too, source=source)
        one.heal()
        back = await one.eventually(available, source=source)
        assert back.source == "Prometheus"


async def test_pods_say_the_same_as_prometheus(one: World) -> None:
    async with (
        one.source() as source,
        one.source(prometheus=None, direct_after_s=0.0) as direct,
        one.load(rate_per_s=16),
    ):

        async def both() -> tuple[ServiceMetrics, ServiceMetrics]:
            return await one.collect(direct), await one.collect(source)

        await eventually(both, agree)


def agree(both: tuple[ServiceMetrics, ServiceMetrics]) -> None:
    themselves, told = both
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

    def asked(metrics: ServiceMetrics) -> None:
        assert metrics.source == "Pods"
        assert metrics.availability.reason == "PodsMissing"
        rate(metrics, 8)

    async with one.source(direct_after_s=1.0) as source, one.load(rate_per_s=8):
        await one.eventually(asked, source=source)


async def test_a_gate_that_does_not_answer_either(one: World) -> None:
    one.api.drop = True
    away = replace(one.pod("gate-2"), ip="127.0.0.9")
    pods = [away if pod.name == away.name else pod for pod in one.pods]

    def silent(metrics: ServiceMetrics) -> None:
        assert metrics.traffic.requests_per_s.value is None
        assert "gate-2" in metrics.availability.message
        assert any("do not answer (gate-2)" in note for note in metrics.notes)

    await one.eventually(silent, pods=pods, direct_after_s=0.0)


async def test_a_service_whose_load_nobody_needs_is_not_asked(one: World) -> None:
    one.api.drop = True
    facts = ServiceFacts(pods=one.pods, load_must_be_known=False)
    async with one.source(direct_after_s=0.0) as source:
        for _ in range(2):
            found = (await source.collect({KEY: facts}))[KEY]
    assert found.source == "None"
