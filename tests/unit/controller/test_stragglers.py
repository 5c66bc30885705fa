"""From the figures of each pod to the advice that names one: every mode, a minute of looks, nothing without metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from paceline.fleet.straggler import SUSTAINED_S, Straggler
from paceline.metrics import Availability, ServiceMetrics
from paceline.planner import Figure
from tests.unit.controller.test_decision_loop import KEY, Stage, metrics

LOOK_S = 15.0
AWAY = Availability(available=False, reason="PodsMissing", message="Prometheus lacks a pod.")


@pytest.fixture(params=["Auto", "Manual", "Advisory"])
def stage(request: pytest.FixtureRequest) -> Stage:
    made = Stage(request.param)
    made.planner.replicas = 2
    return made


def of_pods(stage: Stage, *means_ms: float | None, **changes: Any) -> ServiceMetrics:
    """None: too few tokens."""
    pods = sorted(stage.cluster.live())
    figures: Mapping[str, Figure] = {
        pod: Figure(value=(mean_ms or 500.0) / 1000, samples=2000.0, trust="Fresh" if mean_ms else "Thin")
        for pod, mean_ms in zip(pods, means_ms, strict=True)
    }
    return metrics(pod_inter_token_latency=figures, **changes)


async def look(stage: Stage, *, times: int = 1) -> Straggler | None:
    for _ in range(times):
        stage.cluster.now_s += LOOK_S
        await stage.tick()
    advice = stage.advice.of(KEY)
    assert advice is not None
    return advice.straggler


MINUTE = int(SUSTAINED_S / LOOK_S)


async def test_a_pod_that_is_slow_for_a_minute_is_named_in_every_mode(stage: Stage) -> None:
    stage.source.answer = of_pods(stage, 20, 101)
    assert await look(stage, times=MINUTE) is None
    before = len(stage.wanted)
    found = await look(stage)
    pod = sorted(stage.cluster.live())[1]
    uid = stage.cluster.pods[pod]["metadata"]["uid"]
    assert found == Straggler(pod=pod, uid=uid, mean_s=0.101, peers_s=0.02)
    assert stage.wanted[before:] == [(KEY, False)], "the reconciler hears of it"
    stage.source.answer = of_pods(stage, 20, 103)
    await look(stage)
    assert len(stage.wanted) == before + 1, "figures alone are no news"
    counted = 'paceline_decision_stragglers_total{namespace="team-a",service="chat"} 1.0'
    assert counted in stage.scrape().splitlines()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda stage: of_pods(stage, 20, 55), id="nearly as fast"),
        pytest.param(lambda stage: of_pods(stage, 20, None), id="too few tokens of the slow one"),
        pytest.param(lambda stage: of_pods(stage, None, 101), id="too few tokens of the other"),
        pytest.param(lambda stage: of_pods(stage, 20, 101, availability=AWAY), id="a pod is not heard"),
        pytest.param(lambda _: metrics(), id="nothing is known by pod"),
    ],
)
async def test_one_look_that_does_not_find_it_begins_the_minute_anew(stage: Stage, answer: Any) -> None:
    slow = of_pods(stage, 20, 101)
    stage.source.answer = slow
    await look(stage, times=MINUTE)
    stage.source.answer = answer(stage)
    assert await look(stage) is None
    stage.source.answer = slow
    assert await look(stage, times=MINUTE) is None
    assert await look(stage) is not None


async def test_a_pod_that_is_slow_is_replaced_by_the_reconciler(stage: Stage) -> None:
    stage.source.answer = of_pods(stage, 20, 101)
    found = await look(stage, times=MINUTE + 1)
    assert found is not None
    made = stage.cluster.reconcile()
    advisory = stage.cluster.observe().service.spec.scaling.mode == "Advisory"
    assert [one.name for one in made.delete] == ([] if advisory else [found.pod])


async def test_a_new_process_looks_for_a_minute_first(stage: Stage) -> None:
    stage.source.answer = of_pods(stage, 20, 101)
    await look(stage, times=MINUTE)
    stage.start()
    assert await look(stage) is None
    assert await look(stage, times=MINUTE) is not None
