"""A service at zero: nothing of it runs but its routers, nothing is lost, and it is said to be well."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.fleet.timestamps import rfc3339
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster
from tests.unit.fleet.test_autoscaling import AWAY, advise, auto, desired, shape

ZERO: dict[str, Any] = {"replicaBounds": {"min": 0, "max": 6}}


def asleep() -> Cluster:
    """It has served with two replicas, and went to zero."""
    cluster = auto(**ZERO)
    advise(cluster, shape(0), reason="Idle")
    cluster.settle()
    cluster.advice = None
    return cluster


def wake(cluster: Cluster) -> None:
    advise(cluster, shape(1), reason="RequestHeld")


def test_it_goes_to_zero_pod_by_pod_and_its_deployment_stays() -> None:
    cluster = auto(**ZERO)
    advise(cluster, shape(0), reason="Idle")
    counts = []
    for _ in range(12):
        cluster.reconcile()
        cluster.run_controllers()
        cluster.end_drains()
        counts += list(cluster.variants().values())
        cluster.now_s += 5
    assert sorted(set(counts), reverse=True) == [1, 0]
    assert counts == sorted(counts, reverse=True)
    assert cluster.engine_pods() == []
    assert desired(cluster) == shape(0)
    assert cluster.status.shape is not None
    assert cluster.status.shape.last_safe == shape(2)
    assert cluster.status.shape.current is None


def test_at_zero_it_is_ready_and_says_why() -> None:
    cluster = asleep()
    status, reason, message = cluster.condition("Ready")
    assert (status, reason) == ("True", "ScaledToZero")
    assert "held for up to 300 s" in message
    assert cluster.condition("Progressing")[:2] == ("False", "Settled")
    assert cluster.condition("ScalingActive")[:2] == ("True", "ScaledToZero")
    summary = cluster.status.summary
    assert summary is not None
    assert (summary.replicas, summary.reason) == ("0/0", "ScaledToZero")
    assert cluster.status.replicas == 0


def test_it_wakes_as_the_same_variant_and_is_ready_all_the_while() -> None:
    cluster = asleep()
    (before,) = cluster.variants()
    uid = cluster.engine(before)["metadata"]["uid"]
    wake(cluster)
    reasons, events = [], []
    for ready in (False, False, True, True):
        made = cluster.reconcile()
        events += [one for one in made.events if one.type == "Warning"]
        cluster.run_controllers()
        for pod in cluster.live(before):
            cluster.make_ready(pod, ready=ready)
        reasons.append(cluster.condition("Ready")[:2])
        cluster.now_s += 10
    assert reasons == [
        ("True", "StartingFromZero"),
        ("True", "StartingFromZero"),
        ("True", "StartingFromZero"),
        ("True", "AllReplicasReady"),
    ]
    assert cluster.engine(before)["metadata"]["uid"] == uid
    assert desired(cluster) == shape(1)
    assert events == []


def test_the_status_knows_that_it_wakes_before_a_pod_does() -> None:
    cluster = asleep()
    wake(cluster)
    made = cluster.plan()
    assert made.status_first
    cluster.carry_out(made, actions=0)
    cluster.advice = None
    cluster.settle()
    assert list(cluster.variants().values()) == [1]


def test_it_wakes_without_metrics() -> None:
    cluster = asleep()
    advise(cluster, shape(1), reason="RequestHeld", metrics=AWAY)
    cluster.settle()
    assert list(cluster.variants().values()) == [1]


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_lost_status_does_not_wake_it(restarts: int) -> None:
    cluster = asleep()
    for _ in range(restarts):
        del cluster.service["status"]
        cluster.settle()
    assert list(cluster.variants().values()) == [0]
    assert cluster.condition("Ready")[:2] == ("True", "ScaledToZero")


@pytest.mark.parametrize(
    ("edit", "replicas"),
    [
        pytest.param({"mode": "Manual"}, 2, id="Manual"),
        pytest.param({"mode": "Advisory"}, 1, id="Advisory, which never holds zero"),
        pytest.param({"replicaBounds": {"min": 1, "max": 6}}, 1, id="never zero any more"),
        pytest.param(
            {"override": {"replicas": 3, "tensorParallelSize": 1, "expiresAt": "2099-01-01T00:00:00Z"}},
            3,
            id="an override",
        ),
    ],
)
def test_a_person_wakes_it(edit: dict[str, Any], replicas: int) -> None:
    cluster = asleep()
    cluster.edit({"scaling": edit})
    cluster.settle()
    assert list(cluster.variants().values()) == [replicas]
    assert cluster.condition("Ready")[:2] == ("True", "AllReplicasReady")


def test_after_an_override_has_expired_it_goes_on_from_there() -> None:
    cluster = asleep()
    until = rfc3339(cluster.now_s + 60)
    cluster.edit({"scaling": {"override": {"replicas": 1, "tensorParallelSize": 3, "expiresAt": until}}})
    cluster.settle()
    cluster.now_s += 120
    cluster.settle()
    assert desired(cluster) == shape(1, 3)


def test_paused_at_zero_is_not_ready() -> None:
    cluster = asleep()
    cluster.edit({"paused": True})
    wake(cluster)
    cluster.settle()
    assert list(cluster.variants().values()) == [0]
    assert cluster.condition("Ready")[:2] == ("False", "ScaledToZero")


def test_an_edit_at_zero_costs_no_transition() -> None:
    cluster = asleep()
    (before,) = cluster.variants()
    cluster.edit({"model": {"maxModelTokens": 2048}})
    cluster.settle()
    assert cluster.variants() == {}
    wake(cluster)
    cluster.settle()
    (after,) = cluster.variants()
    assert after != before
    assert cluster.status.transition is None


def test_an_edit_on_the_way_to_zero_brings_nothing_up() -> None:
    cluster = auto(**ZERO)
    advise(cluster, shape(0), reason="Idle")
    cluster.reconcile()
    cluster.edit({"model": {"maxModelTokens": 2048}})
    cluster.settle()
    assert cluster.live() == []
    assert cluster.status.transition is None


def test_a_start_that_fails_is_said_and_tried_on() -> None:
    cluster = asleep()
    wake(cluster)
    cluster.reconcile()
    cluster.run_controllers()
    (pod,) = cluster.live()
    cluster.make_unschedulable(pod)
    cluster.reconcile()
    assert cluster.condition("Ready")[:2] == ("True", "StartingFromZero")
    cluster.now_s += 301
    cluster.reconcile()
    status, reason, message = cluster.condition("Ready")
    assert (status, reason) == ("False", "NoReplicaReady")
    assert "no GPUs" in message
    assert cluster.live() == [pod]


def test_a_start_that_nobody_waits_for_any_more_goes_back_to_zero() -> None:
    cluster = asleep()
    wake(cluster)
    cluster.reconcile()
    cluster.run_controllers()
    cluster.make_unschedulable(cluster.live()[0])
    cluster.reconcile()
    advise(cluster, shape(0), reason="Idle")
    cluster.settle()
    assert cluster.live() == []
    assert cluster.condition("Ready")[:2] == ("True", "ScaledToZero")


@pytest.mark.parametrize("mode", ["Advisory", "Auto"])
def test_zero_is_followed_in_auto_with_that_bound_alone(mode: str) -> None:
    cluster = auto(mode, replicaBounds={"min": 1, "max": 6} if mode == "Auto" else ZERO["replicaBounds"])
    advise(cluster, shape(0), reason="Idle")
    cluster.settle()
    assert list(cluster.variants().values()) == [2]


def test_a_service_that_may_go_to_zero_holds_requests_for_longer() -> None:
    def argument(spec: dict[str, Any], name: str) -> str:
        cluster = Cluster(merged(EMULATED, spec))
        cluster.reconcile()
        template = cluster.children["Deployment", "chat-router"]["spec"]["template"]["spec"]
        args: list[str] = template["containers"][0]["args"]
        if name == "grace":
            return str(template["terminationGracePeriodSeconds"])
        return args[args.index(name) + 1]

    zero = {"scaling": {"mode": "Auto", **ZERO}}
    assert argument({}, "--max-hold-seconds") == "30"
    assert argument(zero, "--max-hold-seconds") == "300"
    assert argument(merged(zero, {"admission": {"maxRequestSeconds": 60}}), "--max-hold-seconds") == "60"
    assert argument(merged(zero, {"router": {"hold": {"maxSeconds": 90}}}), "--max-hold-seconds") == "90"
    # A gate that leaves ends what it holds first.
    assert int(argument(zero, "grace")) == int(argument({}, "grace")) + 270
