"""What the commands that explain print: every figure with its trust, the chosen candidate marked, nothing made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paceline.api import Shape
from paceline.cli.explain import explanation
from paceline.cli.plan import report
from paceline.cli.replay import replayed
from paceline.cli.top import table
from paceline.controller.decision_record import record_of
from paceline.fleet import plan
from paceline.fleet.advice import Advice, Choice, MetricsWord
from paceline.fleet.timing_prior import timing_prior
from paceline.planner import Figure, Observation, Planner, PlannerState
from tests.unit.controller.test_decision_loop import Stage
from tests.unit.fleet.services import EMULATED, SETTINGS, merged
from tests.unit.fleet.simulated_cluster import Cluster


async def _observation() -> Observation:
    stage = Stage()
    await stage.tick()
    return stage.planner.asked[0][0]


async def _recorded() -> tuple[dict[str, Any], dict[str, Any]]:
    stage = Stage()
    await stage.tick()
    stage.cluster.settle()
    observation, state = stage.planner.asked[0]
    decision = stage.planner.decide(observation, state)
    record = record_of(decision, observation=observation, mode="Auto", state=state)
    return stage.cluster.service, record


async def test_an_explanation_has_what_was_seen_weighed_and_chosen() -> None:
    service, record = await _recorded()
    text = "\n".join(explanation(service, [record]))
    assert "chat: Auto, 4xTP1" in text
    assert "2xTP1 -> 4xTP1  QueueingAboveTarget" in text
    assert "3.00 requests/s" in text
    assert "attainment 99.10%" in text
    assert "unknown (Missing)" in text
    assert "16 of 16 GPUs free" in text
    assert "* 4xTP1" in text
    assert "would change: half the load" in text
    assert "MetricsAvailable  True" in text


async def test_a_figure_that_may_not_be_acted_on_says_why() -> None:
    service, record = await _recorded()
    record["observation"]["attainment"] = {"value": 0.5, "age_s": 99.0, "samples": 3, "trust": "Stale"}
    assert "attainment 50.00% (Stale)" in "\n".join(explanation(service, [record]))


def test_nothing_decided_is_said() -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": "Auto"}}))
    cluster.settle()
    assert "Nothing has been decided yet." in "\n".join(explanation(cluster.service, []))


def test_the_last_straggler_is_explained() -> None:
    cluster = Cluster(EMULATED)
    cluster.settle()
    message = "Pod chat-a takes 101.0 ms a token"
    slow = {"pod": "chat-a", "at": "2026-11-22T07:00:00Z", "action": "Replaced", "message": message}
    cluster.service["status"]["lastStraggler"] = slow
    assert f"  2026-11-22T07:00:00Z: {message}" in list(explanation(cluster.service, []))


def test_how_a_change_was_made_is_explained() -> None:
    cluster = Cluster(EMULATED)
    cluster.settle()
    before = str(cluster.service["status"]["variants"][0]["name"])
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    cluster.settle()
    after = str(cluster.service["status"]["variants"][0]["name"])
    said = f"  {'Transitioning':<17} {'False':<8} Change 1 from {before} to {after}: Done."
    assert said in list(explanation(cluster.service, []))


async def test_top_shows_a_dash_for_what_is_not_known() -> None:
    service, _ = await _recorded()
    fresh = Cluster(EMULATED)
    head, known, unknown = table([service, fresh.service])
    assert head.split()[:4] == ["NAMESPACE", "NAME", "MODE", "SHAPE"]
    assert "4xTP1" in known
    assert "99.10%" in known
    assert unknown.split()[3:] == ["-", "-", "0", "-", "-", "-", "-", "-", "-"]


def test_plan_says_what_would_change_and_what_speaks_against_it() -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": "Auto"}}))
    cluster.settle()
    cluster.advice = Advice(
        made_at_s=cluster.now_s,
        generation=1,
        metrics=MetricsWord(usable=True, status="True", reason="Measured", message=""),
        choice=Choice(
            seen=Shape(tensor_parallel_size=1, replicas=2),
            shape=Shape(tensor_parallel_size=1, replicas=5),
            reason="QueueingAboveTarget",
            message="",
            limit=None,
            feasible=True,
            predicted_attainment=None,
        ),
    )
    observed = cluster.observe()
    lines = list(report(observed, plan(observed, settings=SETTINGS), is_live=True, decision=None))
    assert lines[0] == "chat in namespace team-a: Auto, 5×TP1"
    assert any("2 to 5 replicas" in line for line in lines)
    rest = replace(observed, advice=None)
    lines = list(report(rest, plan(rest, settings=SETTINGS), is_live=True, decision=None))
    assert lines[1:] == ["  nothing of the engines changes"]


async def test_a_replay_prints_what_differs_and_with_all_every_look() -> None:
    look = await _observation()
    prior = timing_prior(Cluster(EMULATED).observe())
    assert prior is not None
    later = replace(look, now_s=look.now_s + 15)
    unknown = replace(
        look, now_s=look.now_s + 30, traffic=replace(look.traffic, requests_per_s=Figure(value=None))
    )
    looks = [look, later, unknown]
    planner = Planner(timing=prior.timing)
    assert len(list(replayed(planner, looks, every=True))) == 4
    few = list(replayed(planner, looks, every=False))
    assert 2 <= len(few) <= 4
    decided = planner.decide(look, PlannerState()).shape
    assert f"2xTP1    {decided.replicas}xTP{decided.tensor_parallel_size}" in few[1]
