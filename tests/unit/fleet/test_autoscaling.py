"""The planner's advice is followed where it may be, never where it may not, and what is said of it is true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paceline.api import BurnRate, Shape
from paceline.fleet import plan
from paceline.fleet.advice import METRICS_UNKNOWN, Advice, Choice, Measured, MetricsWord
from paceline.fleet.timestamps import rfc3339
from tests.unit.fleet.services import EMULATED, SETTINGS, merged
from tests.unit.fleet.simulated_cluster import Cluster

BOUNDS = {"replicaBounds": {"min": 1, "max": 6}}
MEASURED = MetricsWord(usable=True, status="True", reason="Measured", message="All pods were heard.")
AWAY = MetricsWord(usable=False, status="False", reason="PrometheusUnreachable", message="No answer.")


def shape(replicas: int, size: int = 1) -> Shape:
    return Shape(tensor_parallel_size=size, replicas=replicas)


def auto(mode: str = "Auto", **scaling: Any) -> Cluster:
    """Two Ready replicas at TP 1."""
    made = Cluster(merged(EMULATED, {"scaling": {"mode": mode, **BOUNDS, **scaling}}))
    made.settle()
    return made


def advise(cluster: Cluster, to: Shape, *, seen: Shape | None = None, **changes: Any) -> None:
    asked = cluster.status.shape
    assert asked is not None
    assert asked.desired is not None
    choice = Choice(
        seen=seen or asked.desired,
        shape=to,
        reason=changes.pop("reason", "QueueingAboveTarget"),
        message=changes.pop("message", "p99 TTFT would be 900 ms"),
        limit=changes.pop("limit", None),
        feasible=changes.pop("feasible", True),
        predicted_attainment=0.995,
        in_place=changes.pop("in_place", False),
    )
    advice = Advice(
        made_at_s=cluster.now_s,
        generation=cluster.service["metadata"]["generation"],
        metrics=MEASURED,
        choice=choice,
    )
    cluster.advice = replace(advice, **changes)


def desired(cluster: Cluster) -> Shape | None:
    return cluster.status.shape.desired if cluster.status.shape is not None else None


def test_auto_follows_the_planner_up_and_down() -> None:
    cluster = auto()
    advise(cluster, shape(4))
    cluster.settle()
    assert desired(cluster) == shape(4)
    assert list(cluster.variants().values()) == [4]
    advise(cluster, shape(1))
    cluster.settle()
    assert list(cluster.variants().values()) == [1]


def test_the_status_knows_of_a_new_shape_before_an_engine_does() -> None:
    cluster = auto()
    advise(cluster, shape(4))
    made = cluster.plan()
    assert made.status_first
    cluster.carry_out(made, actions=0)
    # The operator dies here; its successor has no advice yet, and goes on from the status.
    cluster.advice = None
    cluster.settle()
    assert list(cluster.variants().values()) == [4]


def test_auto_changes_the_tensor_parallel_size_by_the_ordinary_transition() -> None:
    cluster = auto()
    advise(cluster, shape(2, 3))
    cluster.reconcile()
    assert cluster.status.transition is not None
    assert cluster.status.transition.step == "Starting"
    cluster.settle()
    (name,) = cluster.variants()
    assert name.startswith("tp3-")
    assert desired(cluster) == shape(2, 3)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"metrics": AWAY}, id="metrics away"),
        pytest.param({"reason": METRICS_UNKNOWN}, id="the planner had no figures"),
        pytest.param({"seen": shape(3)}, id="about a shape that was left"),
        pytest.param({"generation": 0}, id="made for another spec"),
        pytest.param({"made_at_s": 0.0}, id="too old"),
    ],
)
def test_an_advice_that_may_not_be_followed_changes_nothing(changes: dict[str, Any]) -> None:
    cluster = auto()
    advise(cluster, shape(4), **changes)
    cluster.settle()
    assert list(cluster.variants().values()) == [2]
    assert desired(cluster) == shape(2)


def test_figures_asked_of_the_pods_themselves_may_be_followed() -> None:
    cluster = auto()
    advise(cluster, shape(4), metrics=replace(AWAY, usable=True))
    cluster.settle()
    assert list(cluster.variants().values()) == [4]


def test_no_other_size_is_taken_while_a_change_is_under_way() -> None:
    cluster = auto()
    advise(cluster, shape(2, 3))
    cluster.reconcile()
    cluster.run_controllers()
    advise(cluster, shape(2, 9))
    cluster.reconcile()
    assert desired(cluster) == shape(2, 3)
    advise(cluster, shape(3, 3))
    cluster.reconcile()
    assert desired(cluster) == shape(3, 3)


def test_auto_stays_within_its_bounds_whatever_it_is_told() -> None:
    cluster = auto()
    advise(cluster, shape(60))
    cluster.settle()
    assert list(cluster.variants().values()) == [6]


def test_paused_holds_even_the_planner() -> None:
    cluster = auto()
    cluster.edit({"paused": True})
    advise(cluster, shape(4))
    cluster.settle()
    assert list(cluster.variants().values()) == [2]
    assert desired(cluster) == shape(2)


def test_advisory_says_what_it_would_do_and_changes_nothing() -> None:
    cluster = auto("Advisory")
    advise(cluster, shape(4))
    made = cluster.reconcile()
    assert ("Normal", "AdvisedQueueingAboveTarget") in {(one.type, one.reason) for one in made.events}
    cluster.settle()
    assert list(cluster.variants().values()) == [2]
    assert cluster.status.decisions[0].shape == shape(4)
    assert cluster.condition("ScalingActive")[:2] == ("False", "Advisory")
    assert "4×TP1" in cluster.condition("ScalingActive")[2]


def test_auto_and_manual_hand_over_without_a_jump() -> None:
    cluster = auto("Manual")
    cluster.edit({"scaling": {"mode": "Auto"}})
    cluster.settle()
    assert list(cluster.variants().values()) == [2]
    advise(cluster, shape(4))
    cluster.settle()
    # The condition tells what to write to keep the shape.
    assert "mode: Manual, replicas: 4, tensorParallelSize: 1" in cluster.condition("ScalingActive")[2]
    before = cluster.plan().apply
    cluster.edit({"scaling": {"mode": "Manual", "replicas": 4, "tensorParallelSize": 1}})
    assert {one.name: one.object for one in cluster.plan().apply} == {one.name: one.object for one in before}
    cluster.edit({"scaling": {"mode": "Advisory", "replicas": 2}})
    cluster.settle()
    assert list(cluster.variants().values()) == [4]


def test_an_override_holds_until_it_expires_and_auto_goes_on_from_there() -> None:
    cluster = auto()
    until = rfc3339(cluster.now_s + 900)
    override = {"replicas": 5, "tensorParallelSize": 1, "expiresAt": until, "reason": "launch"}
    cluster.edit({"scaling": {"override": override}})
    made = cluster.reconcile()
    assert made.requeue_after_s is not None
    assert made.requeue_after_s <= 901
    advise(cluster, shape(1))
    cluster.run_controllers()
    cluster.reconcile()
    assert desired(cluster) == shape(5)
    assert cluster.condition("ScalingActive")[:2] == ("False", "Override")
    assert "launch" in cluster.condition("ScalingActive")[2]
    cluster.advice = None
    cluster.settle()
    cluster.now_s += 1000
    cluster.settle()
    assert list(cluster.variants().values()) == [5]
    advise(cluster, shape(3))
    cluster.settle()
    assert list(cluster.variants().values()) == [3]


def test_an_override_holds_in_manual_too_and_gives_way_to_the_spec() -> None:
    cluster = auto("Manual")
    override = {"replicas": 5, "tensorParallelSize": 1, "expiresAt": rfc3339(cluster.now_s + 900)}
    cluster.edit({"scaling": {"override": override}})
    cluster.reconcile()
    assert list(cluster.variants().values()) == [5]
    cluster.now_s += 1000
    cluster.settle()
    assert list(cluster.variants().values()) == [2]


# what is given up


def test_pods_that_find_no_place_are_withdrawn_and_their_shape_is_not_asked_for_again() -> None:
    cluster = auto()
    advise(cluster, shape(4))
    cluster.reconcile()
    cluster.run_controllers()
    starting = [pod for pod in cluster.live() if not cluster._is_ready(pod)]
    cluster.make_ready(starting[0])
    cluster.make_unschedulable(starting[1])
    cluster.now_s += 60
    cluster.reconcile()
    assert desired(cluster) == shape(4)
    cluster.now_s += 61
    cluster.advice = None
    made = cluster.reconcile()
    assert desired(cluster) == shape(3)
    assert ("Warning", "ShapeRefused") in {(one.type, one.reason) for one in made.events}
    (refused,) = cluster.status.refused_shapes
    assert (refused.replicas, refused.reason) == (4, "Unschedulable")
    advise(cluster, shape(4))
    cluster.reconcile()
    assert desired(cluster) == shape(3)
    cluster.settle()
    assert list(cluster.variants().values()) == [3]
    cluster.now_s += 1000
    advise(cluster, shape(4))
    cluster.settle()
    assert list(cluster.variants().values()) == [4]
    assert cluster.status.refused_shapes == ()


def test_a_pod_that_waits_for_the_place_of_one_that_drains_is_not_withdrawn() -> None:
    cluster = auto()
    leaving = cluster.live()[0]
    cluster.delete_pod(leaving)
    cluster.run_controllers()
    (waiting,) = (pod for pod in cluster.live() if not cluster._is_ready(pod))
    cluster.make_unschedulable(waiting)
    cluster.now_s += 500
    cluster.reconcile()
    assert desired(cluster) == shape(2)
    cluster.end_drains()
    cluster.reconcile()
    assert desired(cluster) == shape(1), "nothing drains any more, and there is no place all the same"


def test_in_manual_a_pod_that_finds_no_place_is_left_to_the_person() -> None:
    cluster = auto("Manual")
    cluster.edit({"scaling": {"replicas": 3}})
    cluster.reconcile()
    cluster.run_controllers()
    (pod,) = (pod for pod in cluster.live() if not cluster._is_ready(pod))
    cluster.make_unschedulable(pod)
    cluster.now_s += 500
    cluster.reconcile()
    assert list(cluster.variants().values()) == [3]


def test_a_change_of_size_that_fails_is_rolled_back_and_the_next_one_may_come() -> None:
    cluster = auto()
    (old,) = cluster.variants()
    advise(cluster, shape(2, 3))
    cluster.reconcile()
    cluster.run_controllers()
    (new,) = set(cluster.variants()) - {old}
    for pod in cluster.live(new):
        cluster.make_unschedulable(pod)
    cluster.now_s += 130
    cluster.reconcile()
    assert desired(cluster) == shape(2)
    assert cluster.status.refused is None
    assert cluster.status.refused_shapes[0].tensor_parallel_size == 3
    # The advice that led there is still in memory.
    advise(cluster, shape(2, 3), seen=shape(2))
    cluster.settle()
    assert list(cluster.variants()) == [old]
    advise(cluster, shape(1, 9))
    cluster.settle()
    (name,) = cluster.variants()
    assert name.startswith("tp9-")


def test_a_refused_edit_of_the_spec_still_binds_until_the_next_edit() -> None:
    cluster = auto()
    (old,) = cluster.variants()
    cluster.edit({"runtime": {"image": "broken:1"}})
    cluster.reconcile()
    cluster.run_controllers()
    (new,) = set(cluster.variants()) - {old}
    for pod in cluster.live(new):
        cluster.make_unschedulable(pod)
    cluster.now_s += 130
    cluster.settle()
    assert cluster.status.refused is not None
    assert cluster.status.refused_shapes == ()
    advise(cluster, shape(2, 3))
    cluster.settle()
    assert list(cluster.variants()) == [old]
    # Replicas of what serves are another matter.
    advise(cluster, shape(3))
    cluster.settle()
    assert list(cluster.variants().values()) == [3]


# what is said


def figures(attainment: float | None, *, ttft_s: float | None = 0.42) -> Measured:
    return Measured(
        attainment=attainment,
        samples=1234,
        budget_remaining=0.31,
        burn_rates=(BurnRate(window_seconds=3600, value="0.7"),),
        time_to_first_token_s=ttft_s,
        time_per_output_token_s=0.021,
    )


def test_what_is_measured_stands_in_columns_slo_and_conditions() -> None:
    cluster = auto()
    advise(cluster, shape(2), measured=figures(0.9931), reason="Steady")
    cluster.reconcile()
    summary, slo = cluster.status.summary, cluster.status.slo
    assert summary is not None
    assert slo is not None
    assert (summary.time_to_first_token, summary.time_per_output_token) == ("420/2000ms", "21/100ms")
    assert (slo.attainment_percent, slo.samples, slo.budget_remaining_percent) == ("99.31", 1234, "31")
    assert cluster.condition("MetricsAvailable")[:2] == ("True", "Measured")
    assert cluster.condition("SLOMet")[:2] == ("True", "ObjectiveMet")
    assert cluster.condition("Feasible")[:2] == ("True", "Feasible")
    assert cluster.condition("ScalingActive")[:2] == ("True", "Auto")


def test_a_missed_objective_is_said_at_once_and_other_figures_wait() -> None:
    cluster = auto()
    advise(cluster, shape(2), measured=figures(0.9931), reason="Steady")
    cluster.reconcile()
    before = cluster.status
    cluster.now_s += 15
    advise(cluster, shape(2), measured=figures(0.9955, ttft_s=0.5), reason="Steady")
    assert cluster.plan().status == before
    cluster.now_s += 15
    advise(cluster, shape(2), measured=figures(0.95), reason="Steady")
    made = cluster.reconcile()
    assert cluster.condition("SLOMet")[:2] == ("False", "ObjectiveMissed")
    assert ("Warning", "ObjectiveMissed") in {(one.type, one.reason) for one in made.events}
    cluster.now_s += 125
    advise(cluster, shape(2), measured=figures(0.96, ttft_s=0.7), reason="Steady")
    cluster.reconcile()
    assert cluster.status.summary is not None
    assert cluster.status.summary.time_to_first_token == "700/2000ms"


def test_what_cannot_be_met_is_said_as_it_was_decided_and_not_anew_at_every_look() -> None:
    cluster = auto()
    short: dict[str, Any] = {"feasible": False, "limit": "GpuBudget", "reason": "Steady"}
    advise(cluster, shape(2), message="10 requests/s need 5 GPUs", **short)
    cluster.reconcile()
    before = cluster.status
    status, reason, message = cluster.condition("Feasible")
    assert (status, reason) == ("False", "GpuBudget")
    assert message.endswith("10 requests/s need 5 GPUs")
    cluster.now_s += 15
    advise(cluster, shape(2), message="11 requests/s need 5 GPUs", **short)
    assert cluster.plan().status == before


def test_metrics_that_go_away_leave_no_figure_behind() -> None:
    cluster = auto()
    advise(cluster, shape(2), measured=figures(0.9931), reason="Steady")
    cluster.reconcile()
    cluster.now_s += 15
    advise(cluster, shape(2), metrics=AWAY, reason=METRICS_UNKNOWN)
    made = cluster.reconcile()
    assert cluster.status.summary is not None
    assert cluster.status.summary.time_to_first_token == "-/2000ms"
    assert cluster.condition("MetricsAvailable")[:2] == ("False", "PrometheusUnreachable")
    assert cluster.condition("SLOMet")[:2] == ("Unknown", "NotMeasured")
    assert ("Warning", "PrometheusUnreachable") in {(one.type, one.reason) for one in made.events}


def test_an_operator_that_has_just_started_takes_nothing_back() -> None:
    cluster = auto()
    advise(cluster, shape(2), measured=figures(0.9931), reason="Steady")
    cluster.reconcile()
    before = cluster.status
    cluster.advice = None
    cluster.now_s += 600
    assert cluster.plan().status == before


def test_decisions_are_written_when_they_are_others_and_stay_small() -> None:
    cluster = auto()
    advise(cluster, shape(2), reason="Steady")
    cluster.reconcile()
    assert len(cluster.status.decisions) == 1
    for reason in ("Dwelling", "Steady", "Dwelling"):
        cluster.now_s += 15
        advise(cluster, shape(2), reason=reason)
        cluster.reconcile()
    assert len(cluster.status.decisions) == 1
    for number in range(30):
        cluster.now_s += 15
        advise(cluster, shape(1 + number % 6))
        cluster.reconcile()
    assert len(cluster.status.decisions) == 10
    assert len(cluster.status.to_manifest()["decisions"]) == 10
    assert len(str(cluster.status.to_manifest()["decisions"])) < 8192


def test_an_objective_that_no_shape_meets_is_infeasible_with_the_limit() -> None:
    cluster = auto()
    advise(cluster, shape(2), feasible=False, limit="GpuBudget", reason="Limited")
    made = cluster.reconcile()
    assert cluster.condition("Feasible")[:2] == ("False", "GpuBudget")
    assert ("Warning", "GpuBudget") in {(one.type, one.reason) for one in made.events}


def test_the_same_input_gives_the_same_plan() -> None:
    cluster = auto()
    advise(cluster, shape(4, 3), measured=figures(0.9))
    observed = cluster.observe()
    assert plan(observed, settings=SETTINGS) == plan(observed, settings=SETTINGS)
