"""When a figure is trusted, and when it is unknown with a reason."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.metrics import Rules, ServiceFacts, ServiceMetrics
from paceline.metrics.measure import measure
from paceline.metrics.readings import Readings
from paceline.metrics.sight import Problem
from paceline.planner import Figure, Quantiles
from tests.unit.metrics.readings import NOW_S, RULES, APod, all_well, gate

ENGINES = (APod(name="e1"), APod(name="e2"), APod(name="big", tensor_parallel_size=4))
GATES = (gate("g1"), gate("g2"))


def measured(
    readings: Readings,
    *,
    pods: tuple[APod, ...] = (*ENGINES, *GATES),
    skew_s: float = 0.0,
    rules: Rules = RULES,
) -> ServiceMetrics:
    return measure(readings, ServiceFacts(pods=pods), rules=rules, now_s=NOW_S, skew_s=skew_s)


def of_engines(metrics: ServiceMetrics, *, size: int | None = None) -> Iterator[Figure]:
    for tp, one in metrics.engines.items():
        if size is None or tp == size:
            yield from (one.running, one.waiting, one.kv_cache_usage)
            yield from (one.prefill_tokens_per_s, one.decode_tokens_per_s, one.preemptions_per_s)
            for each in (one.time_to_first_token, one.inter_token_latency, one.time_per_output_token):
                yield from of(each)


def of_gates(metrics: ServiceMetrics) -> Iterator[Figure]:
    traffic = metrics.traffic
    yield from (traffic.requests_per_s, traffic.held_requests, traffic.in_flight_requests)
    yield from of(metrics.client_time_to_first_token)


def of(quantiles: Quantiles) -> Iterator[Figure]:
    yield from (quantiles.p50_s, quantiles.p95_s, quantiles.p99_s, quantiles.mean_s)


def every_figure(metrics: ServiceMetrics) -> Iterator[Figure]:
    yield from of_engines(metrics)
    yield from of_gates(metrics)
    yield from (metrics.attainment, metrics.traffic.cached_prompt_share)


def test_with_everything_heard_every_figure_is_fresh() -> None:
    metrics = measured(all_well(engines=ENGINES, gates=GATES))
    assert (metrics.availability.available, metrics.availability.reason) == (True, "Measured")
    assert {figure.trust for figure in every_figure(metrics)} == {"Fresh"}
    assert metrics.traffic.requests_per_s.value == 10.0
    assert metrics.traffic.requests_per_s.samples == 600.0
    assert metrics.attainment.value == 1.0
    assert metrics.traffic.cached_prompt_share.value == 0.25
    assert metrics.traffic.prompt is not None
    assert metrics.traffic.prompt.mean_tokens == 100.0
    assert metrics.traffic.prompt.counts == (0.0, 600.0, 0.0)
    small, large = metrics.engines[1], metrics.engines[4]
    assert (small.running.value, large.running.value) == (8.0, 4.0)
    assert small.kv_cache_usage.value == 0.25
    assert small.kv_cache_tokens == 160_000
    assert small.prefill_tokens_per_s.value == 5.0 * 75
    assert metrics.notes == ()


@pytest.mark.parametrize("missing", ["e1", "big", "g2"])
def test_one_ready_pod_that_is_missing_makes_the_sum_unknown(missing: str) -> None:
    """Not the sum of the others: that would look like less load, and take replicas away."""
    readings = all_well(engines=ENGINES, gates=GATES)
    del readings.pods[missing]
    metrics = measured(readings)
    assert metrics.availability.available is False
    assert metrics.availability.reason == "PodsMissing"
    assert missing in metrics.availability.message
    assert metrics.notes == (metrics.availability.message,)
    size = {"e1": 1, "big": 4}.get(missing)
    hidden = list(of_gates(metrics) if size is None else of_engines(metrics, size=size))
    assert all(figure.value is None and figure.trust == "Missing" for figure in hidden)
    assert metrics.attainment.value is None
    if size is not None:
        assert metrics.traffic.requests_per_s.trust == "Fresh"
        assert metrics.engines[5 - size].running.trust == "Fresh"


def test_a_failing_scrape_is_named() -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    readings.pods["e1"] = {"down": 0.0}
    assert "scrape of 1 of them fails" in measured(readings).availability.message


def test_an_empty_answer_is_unknown_and_not_zero() -> None:
    metrics = measured(Readings())
    assert metrics.availability.reason == "NotScraped"
    assert all(figure.value is None for figure in every_figure(metrics))
    assert metrics.traffic.prompt is None


def test_a_pod_that_has_just_become_ready_is_not_missed_yet() -> None:
    new = APod(name="new", ready_since_s=NOW_S - 5)
    old = replace(new, ready_since_s=NOW_S - RULES.scrape_grace_s - 1)
    unknown_since = replace(new, ready_since_s=None)
    readings = all_well(engines=ENGINES, gates=GATES)
    assert measured(readings, pods=(*ENGINES, new, *GATES)).engines[1].running.value == 8.0
    assert measured(readings, pods=(*ENGINES, old, *GATES)).engines[1].running.value is None
    assert measured(readings, pods=(*ENGINES, unknown_since, *GATES)).engines[1].running.value is None


def test_pods_that_start_or_leave_are_neither_missed_nor_counted() -> None:
    leaving = APod(name="leaving", deleting=True)
    starting = APod(name="starting", ready=False, ready_since_s=None)
    readings = all_well(engines=(*ENGINES, leaving), gates=GATES)
    metrics = measured(readings, pods=(*ENGINES, leaving, starting, *GATES))
    assert metrics.availability.available is True
    assert metrics.engines[1].running.value == 8.0


def test_the_oldest_sample_decides_the_age() -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    readings.pods["e2"]["age_s"] = RULES.stale_after_s + 1
    metrics = measured(readings)
    assert metrics.engines[1].running.trust == "Stale"
    assert metrics.engines[1].running.value == 8.0
    assert metrics.engines[1].running.fresh is None
    assert metrics.engines[1].running.age_s == RULES.stale_after_s + 1
    assert metrics.engines[4].running.trust == "Fresh"
    assert (metrics.availability.available, metrics.availability.reason) == (False, "Stale")


@pytest.mark.parametrize("skew_s", [-31.0, 31.0])
def test_a_clock_that_is_off_contradicts_everything(skew_s: float) -> None:
    metrics = measured(all_well(engines=ENGINES, gates=GATES), skew_s=skew_s)
    assert metrics.availability.reason == "ClockSkew"
    assert {figure.trust for figure in every_figure(metrics)} == {"Contradicted"}
    assert measured(all_well(engines=ENGINES, gates=GATES), skew_s=skew_s * 0.9).availability.available


def test_no_requests_is_a_rate_of_zero_and_no_latency() -> None:
    metrics = measured(all_well(engines=ENGINES, gates=GATES, requests_per_s=0.0))
    assert metrics.availability.available is True
    assert metrics.traffic.requests_per_s == Figure(value=0.0, age_s=2.0, samples=0.0, trust="Fresh")
    for figure in (metrics.attainment, *of(metrics.client_time_to_first_token)):
        assert (figure.value, figure.samples, figure.trust) == (None, 0.0, "Thin")
    assert metrics.traffic.prompt is None
    assert metrics.traffic.cached_prompt_share.value is None


def test_a_tail_needs_more_requests_than_a_mean() -> None:
    # 30 requests a minute at each size: enough for a mean and a p95 of twenty, not for a p99 of a hundred.
    metrics = measured(all_well(engines=ENGINES, gates=GATES, requests_per_s=1.0))
    latency = metrics.engines[1].time_to_first_token
    assert [figure.trust for figure in of(latency)] == ["Fresh", "Fresh", "Thin", "Fresh"]
    few = measured(all_well(engines=ENGINES, gates=GATES, requests_per_s=0.1)).engines[1]
    assert {figure.trust for figure in of(few.time_to_first_token)} == {"Thin"}
    assert all(figure.value is not None for figure in of(few.time_to_first_token))


@pytest.mark.parametrize("where", ["arrivals", "running", "ttft"])
def test_a_nan_is_unknown_and_says_so(where: str) -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    if where == "arrivals":
        readings.rates["arrivals", None] = math.nan
    elif where == "running":
        readings.pods["e1"]["running"] = math.nan
    else:
        readings.histograms["ttft", 1][math.inf] = math.nan
    metrics = measured(readings)
    assert metrics.availability.reason == "NotANumber"
    figure = {
        "arrivals": metrics.traffic.requests_per_s,
        "running": metrics.engines[1].running,
        "ttft": metrics.engines[1].time_to_first_token.p95_s,
    }[where]
    assert (figure.value, figure.trust) == (None, "Missing")
    assert metrics.engines[4].running.trust == "Fresh"


def test_a_metric_that_only_some_pods_have_is_unknown() -> None:
    """An image with another vLLM beside: the mean of the rest is not the mean."""
    readings = all_well(engines=ENGINES, gates=GATES)
    del readings.pods["e1"]["kv_cache_usage"]
    metrics = measured(readings)
    assert metrics.engines[1].kv_cache_usage.value is None
    assert metrics.engines[1].running.value == 8.0
    assert "KV cache" in metrics.availability.message


def test_gates_seen_but_without_a_rate_are_scraped_too_rarely() -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    del readings.rates["arrivals", None]
    metrics = measured(readings)
    assert metrics.availability.reason == "TooFewScrapes"
    assert metrics.traffic.requests_per_s.value is None


def test_failures_that_no_engine_counted_are_misses() -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    readings.rates["unserved", None] = 2.5
    readings.rates["arrivals", None] = 12.5
    assert measured(readings).attainment.value == pytest.approx(10 / 12.5)


def test_faults_of_the_client_are_no_load() -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    readings.rates["arrivals", None] = 11.0
    readings.rates["client_errors", None] = 1.0
    readings.rates["counted", 1] += 1.0
    metrics = measured(readings)
    assert metrics.traffic.requests_per_s.value == 10.0
    assert metrics.attainment.value == 1.0


@pytest.mark.parametrize(
    ("arrivals", "change", "contradicted"),
    [
        pytest.param(10.0, 0.0, False, id="equal"),
        pytest.param(12.0, 0.0, False, id="a little apart"),
        pytest.param(4.0, 0.0, True, id="a gate is not scraped"),
        pytest.param(20.0, 0.0, True, id="engines are not scraped"),
        pytest.param(20.0, 10.0, False, id="half of it runs still"),
    ],
)
def test_gates_and_engines_that_cannot_both_be_right(
    arrivals: float, change: float, contradicted: bool
) -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    readings.rates["arrivals", None] = arrivals
    readings.rates["in_flight_change", 1] = change
    metrics = measured(readings)
    assert (metrics.traffic.requests_per_s.trust == "Contradicted") == contradicted
    assert (metrics.attainment.trust == "Contradicted") == contradicted
    assert (metrics.availability.reason == "Contradicted") == contradicted


def test_an_engine_that_has_just_come_contradicts_nobody() -> None:
    """A burst that was held at zero: it is in no rate of the engine that answered it."""
    new = replace(ENGINES[0], ready_since_s=NOW_S - 30)
    readings = all_well(engines=(new,), gates=GATES)
    readings.rates["counted", 1] = 0.0
    assert measured(readings, pods=(new, *GATES)).availability.available is True
    old = replace(new, ready_since_s=NOW_S - 600)
    assert measured(readings, pods=(old, *GATES)).availability.reason == "Contradicted"


def test_few_requests_apart_are_no_contradiction() -> None:
    readings = all_well(engines=ENGINES, gates=GATES, requests_per_s=0.2)
    readings.rates["arrivals", None] = 0.6
    assert measured(readings).availability.available is True


def test_at_zero_replicas_the_load_is_known_from_the_gates() -> None:
    readings = all_well(engines=(), gates=GATES)
    readings.rates["unserved", None] = 1.0
    metrics = measured(readings, pods=GATES)
    assert metrics.availability.available is True
    assert metrics.traffic.requests_per_s.value == 10.0
    assert metrics.attainment.value == 0.0
    assert metrics.engines == {}


def test_without_ready_pods_there_is_nothing_to_measure() -> None:
    pods = tuple(replace(pod, ready=False) for pod in (*ENGINES, *GATES))
    metrics = measured(Readings(), pods=pods)
    assert (metrics.availability.available, metrics.availability.reason) == (None, "NoPods")
    starting = tuple(replace(pod, ready_since_s=NOW_S - 1) for pod in (*ENGINES, *GATES))
    metrics = measured(Readings(), pods=starting)
    assert (metrics.availability.available, metrics.availability.reason) == (None, "Starting")


def test_a_failed_query_is_a_problem_of_its_own() -> None:
    readings = all_well(engines=ENGINES, gates=GATES)
    readings.histograms.clear()
    metrics = measure(
        readings,
        ServiceFacts(pods=(*ENGINES, *GATES)),
        rules=RULES,
        now_s=NOW_S,
        problems=[Problem(reason="QueryFailed", message="too many samples")],
    )
    assert (metrics.availability.available, metrics.availability.reason) == (False, "QueryFailed")
    assert metrics.traffic.requests_per_s.trust == "Fresh"
    assert metrics.engines[1].time_to_first_token.p95_s.trust == "Missing"


PODS = st.lists(
    st.builds(
        APod,
        name=st.sampled_from(["e1", "e2", "big", "other"]),
        tensor_parallel_size=st.sampled_from([1, 4]),
        ready=st.booleans(),
        deleting=st.booleans(),
        finished=st.booleans(),
        ready_since_s=st.one_of(st.none(), st.floats(NOW_S - 200, NOW_S)),
    ),
    max_size=4,
    unique_by=lambda pod: pod.name,
)


@st.composite
def whatever(draw: st.DrawFn) -> tuple[Readings, tuple[APod, ...]]:
    """Readings with holes, NaNs and old samples, and pods that may or may not be in them."""
    chance = random.Random(draw(st.integers(0, 2**32)))

    def spoil(found: dict[Any, float]) -> None:
        for key in list(found):
            if chance.random() < 0.06:
                del found[key]
            elif chance.random() < 0.06:
                found[key] = chance.choice([0.0, math.nan, math.inf, chance.uniform(0, 1e6)])

    readings = all_well(
        engines=ENGINES,
        gates=GATES,
        requests_per_s=draw(st.floats(0, 100)),
        age_s=draw(st.floats(0, 100)),
    )
    spoil(readings.rates)
    for gauges in readings.pods.values():
        spoil(gauges)
    for buckets in readings.histograms.values():
        spoil(buckets)
    gates = tuple(replace(one, ready=chance.random() < 0.8) for one in GATES)
    return readings, (*draw(PODS), *gates)


@settings(deadline=None, max_examples=300)
@given(whatever(), st.floats(-100, 100))
def test_whatever_is_read_the_rules_hold(given_: tuple[Readings, tuple[APod, ...]], skew_s: float) -> None:
    readings, pods = given_
    metrics = measured(readings, pods=pods, skew_s=skew_s)
    for figure in every_figure(metrics):
        if figure.value is None:
            assert figure.trust != "Fresh"
        else:
            assert math.isfinite(figure.value)
            assert figure.trust != "Missing"
        if figure.trust in ("Fresh", "Thin") and figure.age_s is not None:
            assert figure.age_s <= RULES.stale_after_s
        if figure.trust == "Fresh":
            assert abs(skew_s) <= RULES.max_skew_s
    for component, figures in (("engine", of_engines(metrics)), ("router", of_gates(metrics))):
        missed = any(
            pod.component == component
            and pod.ready
            and not (pod.deleting or pod.finished)
            and (pod.ready_since_s is None or NOW_S - pod.ready_since_s > RULES.scrape_grace_s)
            and "age_s" not in readings.pods.get(pod.name, {})
            for pod in pods
        )
        sizes = {pod.tensor_parallel_size for pod in pods if pod.component == "engine"}
        if missed and (component == "router" or len(sizes) == 1):
            assert all(figure.value is None for figure in figures)
            assert metrics.availability.available is False
    if metrics.availability.available:
        assert metrics.traffic.requests_per_s.trust == "Fresh"
        assert metrics.notes == ()
    if metrics.availability.available is False:
        assert metrics.notes
    assert len(metrics.availability.message) <= 1024
