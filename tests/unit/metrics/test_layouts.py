"""Whose figures are whose where pods were changed in place: their series bear the size of the template all the same."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from paceline.metrics import EngineFigures, ServiceFacts
from paceline.metrics.measure import measure
from paceline.planner import Figure
from paceline_core import Layout
from tests.unit.metrics.readings import NOW_S, RULES, APod, all_well, gate

LONG_AGO_S = NOW_S - 3000
TWO_OF_FOUR = Layout(4, 2)
CHANGED = APod(name="e1", tensor_parallel_size=8, layout=TWO_OF_FOUR, changed_at_s=LONG_AGO_S)


def figures(*engines: APod) -> dict[int, EngineFigures]:
    gates = (gate("g"),)
    readings = all_well(engines=engines, gates=gates)
    found = measure(readings, ServiceFacts(pods=(*engines, *gates)), rules=RULES, now_s=NOW_S)
    assert found.availability.available is True
    assert found.attainment.value == 1.0, "requests are the service's, whatever served them"
    return dict(found.engines)


def over_the_window(one: EngineFigures) -> tuple[Figure, ...]:
    times = (one.time_to_first_token, one.inter_token_latency, one.time_per_output_token)
    rates = (one.prefill_tokens_per_s, one.decode_tokens_per_s, one.preemptions_per_s)
    return (*rates, *(time.mean_s for time in times))


def test_figures_are_of_the_size_that_a_pod_serves_in() -> None:
    found = figures(CHANGED, replace(CHANGED, name="e2"))
    assert set(found) == {4}
    assert found[4].running == Figure(value=8.0, age_s=2.0, samples=2)
    assert found[4].decode_tokens_per_s.value == 200.0
    assert found[4].kv_cache_tokens == 160_000
    assert {one.trust for one in over_the_window(found[4])} == {"Fresh"}


def test_of_two_variants_that_serve_in_one_size_the_rates_are_added() -> None:
    found = figures(CHANGED, APod(name="e2", tensor_parallel_size=4))
    assert set(found) == {4}
    assert found[4].decode_tokens_per_s.value == 200.0


@pytest.mark.parametrize(
    ("other", "sizes"),
    [
        pytest.param(replace(CHANGED, name="e2", layout=Layout(8)), {4, 8}, id="one is still to change"),
        pytest.param(replace(CHANGED, name="e2", silent=True), {4}, id="one does not say"),
        pytest.param(replace(CHANGED, name="e2", changed_at_s=NOW_S - 30), {4}, id="one changed lately"),
        pytest.param(replace(CHANGED, name="e2", ready=False, changed_at_s=math.inf), {4}, id="one is away"),
    ],
)
def test_sums_that_cannot_be_told_apart_are_unknown_and_gauges_are_not(other: APod, sizes: set[int]) -> None:
    found = figures(CHANGED, other)
    assert set(found) == sizes
    for one in found.values():
        assert {figure.trust for figure in over_the_window(one)} == {"Missing"}
        assert one.running.trust == "Fresh"
    assert found[4].running.value in (4.0, 8.0)
