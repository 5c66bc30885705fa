"""Everything that can break between a pod and the planner: the figure is unknown, with the reason, and never 0."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from paceline.metrics import Reason, ServiceFacts, ServiceMetrics
from tests.integration.metrics import faults
from tests.integration.metrics.faults import Proxy
from tests.integration.metrics.world import KEY, APod, Key, World, available, eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")


def all_unknown(metrics: ServiceMetrics) -> None:
    assert metrics.traffic.requests_per_s.value is None
    assert metrics.traffic.held_requests.value is None
    assert metrics.traffic.prompt is None
    assert metrics.attainment.value is None
    for one in metrics.engines.values():
        assert one.running.value is None
        assert one.time_to_first_token.mean_s.value is None
    assert metrics.notes


def loaded(metrics: ServiceMetrics) -> None:
    available(metrics)
    assert (metrics.traffic.requests_per_s.fresh or 0.0) > 0


def answer_nothing(proxy: Proxy) -> None:
    proxy.rewrite = faults.of_rows(faults.nothing)


def answer_nan(proxy: Proxy) -> None:
    proxy.rewrite = faults.of_rows(faults.all_nan)


def answer_null(proxy: Proxy) -> None:
    proxy.rewrite = lambda _: '{"status":"success","data":null}'


def answer_half(proxy: Proxy) -> None:
    proxy.rewrite = lambda text: text[: len(text) // 2]


def answer_an_error(proxy: Proxy) -> None:
    proxy.rewrite = lambda _: '{"status":"error","errorType":"execution","error":"out of memory"}'


def answer_a_login_page(proxy: Proxy) -> None:
    proxy.rewrite = lambda _: "<html>log in</html>"


def answer_in_part(proxy: Proxy) -> None:
    proxy.rewrite = lambda text: text.replace('{"status"', '{"warnings":["store b is down"],"status"', 1)


@pytest.mark.parametrize(
    ("break_it", "reason", "says"),
    [
        pytest.param(lambda p: setattr(p, "drop", True), "PrometheusUnreachable", "", id="reset"),
        pytest.param(lambda p: setattr(p, "status", 503), "PrometheusUnreachable", "503", id="503"),
        pytest.param(lambda p: setattr(p, "status", 401), "QueryFailed", "bearer token", id="401"),
        pytest.param(lambda p: setattr(p, "status", 404), "QueryFailed", "Check the URL", id="404"),
        pytest.param(lambda p: setattr(p, "status", 302), "QueryFailed", "Check the URL", id="redirect"),
        pytest.param(answer_nothing, "NotScraped", "lacks 3 of 3 Ready engine", id="empty"),
        pytest.param(answer_nan, "NotScraped", "lacks", id="NaN"),
        pytest.param(answer_null, "QueryFailed", "not an answer", id="null"),
        pytest.param(answer_half, "QueryFailed", "not JSON", id="cut off"),
        pytest.param(answer_an_error, "QueryFailed", "out of memory", id="error with 200"),
        pytest.param(answer_a_login_page, "QueryFailed", "not JSON", id="a login page"),
        pytest.param(answer_in_part, "QueryFailed", "store b is down", id="a partial answer"),
    ],
)
async def test_a_fault_between_prometheus_and_us(
    one: World, break_it: Callable[[Proxy], None], reason: Reason, says: str
) -> None:
    async with one.load(rate_per_s=8), one.source() as source:
        break_it(one.api)
        metrics = await one.collect(source)
        assert metrics.availability.available is False
        assert metrics.availability.reason == reason
        assert says in metrics.availability.message
        all_unknown(metrics)
        one.api.heal()
        await one.eventually(loaded, source=source)


async def test_prometheus_is_not_there_at_all(one: World) -> None:
    settings = one.settings()
    assert settings.prometheus is not None
    gone = replace(settings.prometheus, url="http://127.0.0.1:9")
    metrics = await one.look(prometheus=gone)
    assert metrics.availability.reason == "PrometheusUnreachable"
    all_unknown(metrics)


async def test_what_may_pass_is_tried_again(one: World) -> None:
    """Each of the four queries fails once, and is answered at the second try."""
    one.api.status, one.api.failures = 503, 4
    metrics = await one.look()
    assert metrics.availability.available is True
    assert one.api.asked == 8


async def test_what_will_not_pass_is_asked_once(one: World) -> None:
    one.api.status = 400
    await one.look()
    assert one.api.asked == 4


async def test_a_wait_that_is_asked_for_is_kept(one: World) -> None:
    one.api.status, one.api.failures, one.api.retry_after = 429, 1, "1"
    since_s = time.monotonic()
    metrics = await one.look()
    assert metrics.availability.available is True
    assert time.monotonic() - since_s > 1.0


async def test_a_tick_ends_in_its_time(one: World) -> None:
    one.api.delay_s = 60.0
    since_s = time.monotonic()
    metrics = await one.look(tick_timeout_s=1.0)
    assert time.monotonic() - since_s < 30.0
    assert metrics.availability.reason == "PrometheusUnreachable"
    assert "within 1 s" in metrics.availability.message
    all_unknown(metrics)


@pytest.mark.parametrize("offset_s", [-90.0, 90.0])
async def test_a_clock_that_is_off(one: World, offset_s: float) -> None:
    one.api.rewrite = faults.of_rows(faults.told_at(offset_s))

    def skewed(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "ClockSkew"
        where = "ahead of" if offset_s > 0 else "behind"
        assert f"{abs(offset_s):.0f} s {where}" in metrics.availability.message
        assert metrics.traffic.requests_per_s.trust == "Contradicted"
        assert metrics.engines[1].running.fresh is None

    await one.eventually(skewed)


@pytest.mark.parametrize("name", ["engine-b", "gate-1"])
async def test_a_pod_that_is_missing_from_the_answers(one: World, name: str) -> None:
    one.api.rewrite = faults.of_rows(faults.without_pod(name))

    def missing(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "PodsMissing"
        assert name in metrics.availability.message
        assert metrics.attainment.value is None
        if name == "engine-b":
            assert metrics.engines[1].running.value is None
            assert metrics.engines[2].running.trust == "Fresh"
            assert metrics.traffic.requests_per_s.trust == "Fresh"
        else:
            assert metrics.traffic.requests_per_s.value is None
            assert metrics.engines[1].running.trust == "Fresh"

    await one.eventually(missing)


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda p: setattr(p, "delay_s", 60.0), id="hangs"),
        pytest.param(lambda p: setattr(p, "status", 500), id="500"),
        pytest.param(lambda p: setattr(p, "drop", True), id="reset"),
    ],
)
async def test_a_pod_whose_scrape_fails(one: World, break_it: Callable[[Proxy], None]) -> None:
    break_it(one.pages["engine-a"])

    def missing(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "PodsMissing"
        assert "engine-a" in metrics.availability.message
        assert "scrape of 1 of them fails" in metrics.availability.message
        assert metrics.engines[1].running.value is None
        assert metrics.engines[2].running.trust == "Fresh"

    await one.eventually(missing)
    one.heal()
    await one.until_measured()


async def test_a_pod_that_prometheus_does_not_know(one: World) -> None:
    one.scrape([pod for pod in one.pods if pod.name != "gate-2"])

    def missing(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "PodsMissing"
        assert "does not scrape them" in metrics.availability.message
        assert metrics.traffic.requests_per_s.value is None

    await one.eventually(missing)


async def test_a_page_without_the_series(one: World) -> None:
    """An image of somebody's own: the scrape works and says nothing."""
    one.pages["engine-c"].rewrite = lambda _: "something_else 1\n"

    def missing(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "PodsMissing"
        assert metrics.engines[2].running.value is None

    await one.eventually(missing)


async def test_a_page_with_a_nan(one: World) -> None:
    name = "vllm:num_requests_running"

    def rewrite(page: str) -> str:
        lines = [
            line.rsplit(" ", 1)[0] + " NaN" if line.startswith(name) else line for line in page.splitlines()
        ]
        return "\n".join(lines) + "\n"

    one.pages["engine-c"].rewrite = rewrite

    def odd(metrics: ServiceMetrics) -> None:
        assert metrics.availability.reason == "NotANumber"
        assert metrics.engines[2].running.value is None
        assert metrics.engines[1].running.trust == "Fresh"

    await one.eventually(odd)


async def test_names_of_an_older_vllm(one: World) -> None:
    """With one replica of each version at one size, both count."""
    renamed = {
        "vllm:kv_cache_usage_perc": "vllm:gpu_cache_usage_perc",
        "vllm:inter_token_latency_seconds": "vllm:time_per_output_token_seconds",
        "vllm:prompt_tokens_cached_total": "vllm:gpu_prefix_cache_hits_total",
    }

    def rewrite(page: str) -> str:
        for new, old in renamed.items():
            page = page.replace(new, old)
        return page

    one.pages["engine-a"].rewrite = rewrite

    def both_count(metrics: ServiceMetrics) -> None:
        available(metrics)
        small = metrics.engines[1]
        assert small.kv_cache_usage.trust == "Fresh"
        assert small.kv_cache_usage.samples == 2
        # Seven gaps a request, two thirds of the requests here: half of them would be one replica's.
        tokens, gaps = small.decode_tokens_per_s.value, small.inter_token_latency.mean_s.samples
        assert tokens
        assert gaps == pytest.approx(tokens * 7 / 8 * one.rules.window_s, rel=0.25)
        assert {pace.trust for pace in metrics.pod_inter_token_latency.values()} == {"Fresh"}

    async with one.load(rate_per_s=16):
        await asyncio.sleep(one.rules.window_s)
        await one.eventually(both_count)


async def test_a_new_pod_is_not_missed_before_its_grace_is_over(one: World) -> None:
    new = APod(
        name="new",
        component="engine",
        tensor_parallel_size=1,
        ip="127.0.0.1",
        ready_since_s=time.time(),
    )
    patient = replace(one.rules, scrape_grace_s=3600.0)
    await one.eventually(available, pods=[*one.pods, new], rules=patient)
    await asyncio.sleep(one.rules.scrape_grace_s)
    metrics = await one.look([*one.pods, new])
    assert metrics.availability.reason == "PodsMissing"


async def test_a_label_value_cannot_become_a_query(one: World) -> None:
    settings = one.settings()
    assert settings.prometheus is not None
    hostile = {"pod": 'x"} or vector(1) #', "namespace": "a\\", "job": "line\nbreak"}
    metrics = await one.look(prometheus=replace(settings.prometheus, matchers=hostile))
    assert metrics.availability.reason == "NotScraped"
    assert 'x\\"} or vector(1) #' in one.api.last_query
    await one.eventually(available, prometheus=replace(settings.prometheus, matchers={"job": "pods"}))


async def test_another_service_is_not_mixed_in(one: World) -> None:
    other = KEY._replace(name="chat-2")
    elsewhere = KEY._replace(namespace="team-b")

    def apart(found: dict[Key, ServiceMetrics]) -> None:
        available(found[KEY])
        assert found[other].availability.reason == "NotScraped"
        assert found[elsewhere].availability.reason == "NotScraped"

    async with one.source() as source:
        every = {key: ServiceFacts(pods=one.pods) for key in (KEY, other, elsewhere)}
        await eventually(lambda: source.collect(every), apart)
