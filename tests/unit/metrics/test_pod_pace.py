"""How fast tokens come from each pod: known of a pod that is heard itself, in one size, with enough tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from paceline.metrics import ServiceFacts
from paceline.metrics.answers import Answers
from paceline.metrics.measure import measure
from paceline.metrics.prometheus import Row
from paceline.planner import Figure
from paceline_core import Layout
from tests.unit.metrics.readings import NOW_S, RULES, APod, all_well, gate

SLOW, FAST = APod(name="slow"), APod(name="fast")


def paces(
    *engines: APod, slow: Mapping[str, float | None] | None = None, skew_s: float = 0.0
) -> Mapping[str, Figure]:
    """`slow`: what is heard of the pod of that name; None takes away."""
    readings = all_well(engines=engines, gates=(gate("g"),))
    for figure, value in (slow or {}).items():
        readings.pods["slow"][figure] = value  # type: ignore[index, assignment]
    readings.pods["slow"] = {k: v for k, v in readings.pods["slow"].items() if v is not None}
    facts = ServiceFacts(pods=(*engines, gate("g")))
    return measure(readings, facts, rules=RULES, now_s=NOW_S, skew_s=skew_s).pod_inter_token_latency


def test_each_pod_has_its_own_mean_and_its_own_tokens() -> None:
    found = paces(SLOW, FAST, slow={"itl_sum": 1.5, "itl_count": 10.0})
    assert found == {
        "slow": Figure(value=1.5 / 10, age_s=2.0, samples=600.0),
        "fast": Figure(value=0.6 / 20, age_s=2.0, samples=1200.0),
    }


@pytest.mark.parametrize(
    ("slow", "trust"),
    [
        pytest.param({"itl_sum": None}, "Missing", id="no sum"),
        pytest.param({"itl_count": None}, "Missing", id="no count"),
        pytest.param({"itl_sum": math.nan}, "Missing", id="the sum is no number"),
        pytest.param({"itl_count": math.nan}, "Missing", id="the count is no number"),
        pytest.param({"itl_sum": 0.0, "itl_count": 0.0}, "Thin", id="no tokens"),
        pytest.param({"itl_sum": 0.005, "itl_count": 0.1}, "Thin", id="six tokens"),
        pytest.param({"age_s": None}, "Missing", id="not heard"),
        pytest.param({"age_s": 50.0}, "Stale", id="heard long ago"),
    ],
)
def test_what_is_not_known_of_one_pod_is_known_of_the_other(
    slow: Mapping[str, float | None], trust: str
) -> None:
    found = paces(SLOW, FAST, slow=slow)
    assert found["slow"].trust == trust
    assert found["slow"].fresh is None
    assert found["fast"].fresh == pytest.approx(0.03)


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(APod(name="slow", ready=False), id="not Ready"),
        pytest.param(APod(name="slow", deleting=True), id="on its way out"),
        pytest.param(APod(name="slow", silent=True), id="does not say what it serves in"),
        pytest.param(
            APod(name="slow", tensor_parallel_size=4, layout=Layout(1, 4), changed_at_s=NOW_S - 30),
            id="changed in place within the window",
        ),
    ],
)
def test_a_pod_that_does_not_serve_in_one_known_size_is_unknown(pod: APod) -> None:
    assert paces(pod, FAST)["slow"].fresh is None


def test_one_that_changed_long_ago_is_known() -> None:
    changed = APod(name="slow", tensor_parallel_size=4, layout=Layout(1, 4), changed_at_s=NOW_S - 3000)
    assert paces(changed, FAST)["slow"].fresh == pytest.approx(0.03)


def test_with_clocks_apart_nothing_is_known() -> None:
    assert {one.fresh for one in paces(SLOW, FAST, skew_s=40.0).values()} == {None}


def test_the_rows_of_prometheus_are_told_apart_by_pod_and_added_by_size() -> None:
    answers = Answers()
    names = {"namespace": "team-a", "paceline_dev_service": "chat", "paceline_dev_tensor_parallel_size": "1"}
    answers.add_pods(
        Row(labels={**names, "pod": pod, "figure": figure}, value=value)
        for pod, figure, value in (("a", "itl_sum", 1.5), ("a", "itl_count", 10.0), ("b", "itl_sum", 0.25))
    )
    found = answers.of("team-a", "chat")
    assert found is not None
    assert found.pods == {"a": {"itl_sum": 1.5, "itl_count": 10.0}, "b": {"itl_sum": 0.25}}
    assert found.rates == {("itl_sum", 1): 1.75, ("itl_count", 1): 10.0}
