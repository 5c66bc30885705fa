"""Verify what is said of a service: conditions, columns, counts. What is unknown is said to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paceline.fleet import PodInfo, plan
from tests.unit.fleet.services import CPU_DEMO, EMULATED, SETTINGS, SEVENTY_B, merged
from tests.unit.fleet.simulated_cluster import Cluster

INFO = PodInfo.parse(
    {
        "version": "0.1.0",
        "emulated": False,
        "model": {"uri": "x", "revision": "abc", "attentionHeads": 64, "kvHeads": 8, "weightsBytes": 7},
        "tensorParallelSize": 4,
        "stages": {"weights": 1.5, "compile": None},
        "draining": False,
    }
)


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(SEVENTY_B)
    made.settle()
    return made


def test_what_is_not_measured_is_unknown_and_its_columns_are_a_dash(cluster: Cluster) -> None:
    for kind in ("MetricsAvailable", "SLOMet", "Feasible"):
        assert cluster.condition(kind)[:2] == ("Unknown", "NotMeasured")
    summary = cluster.status.summary
    assert summary is not None
    assert (summary.time_to_first_token, summary.time_per_output_token) == ("-/500ms", "-/40ms")


def test_a_service_at_strength_says_so(cluster: Cluster) -> None:
    assert cluster.condition("Ready")[:2] == ("True", "AllReplicasReady")
    assert cluster.condition("Progressing")[:2] == ("False", "Settled")
    assert cluster.condition("RouterReady")[:2] == ("True", "AllReady")
    assert cluster.condition("CapacityAvailable")[:2] == ("True", "Scheduled")
    assert cluster.condition("ModelLoaded")[:2] == ("True", "Loaded")
    status = cluster.status
    assert status.url == "http://chat.team-a.svc/v1"
    assert status.selector == "paceline.dev/service=chat,paceline.dev/component=engine"
    assert status.replicas == 3
    assert status.summary is not None
    assert (status.summary.replicas, status.summary.reason) == ("3/3", "AllReplicasReady")
    assert status.gpus is not None
    assert (status.gpus.serving, status.gpus.starting, status.gpus.draining) == (12, 0, 0)


@pytest.mark.parametrize(
    ("request_s", "limit_s", "status"),
    [
        pytest.param(1800, 600, "True", id="a node is taken before the longest request ends"),
        pytest.param(1800, 3600, "False", id="the cluster waits longer"),
        pytest.param(60, 600, "False", id="the requests are short"),
    ],
)
def test_a_drain_that_the_cluster_cuts_short_is_named(request_s: int, limit_s: int, status: str) -> None:
    service = merged(CPU_DEMO, {"admission": {"maxRequestSeconds": request_s}})
    made = Cluster(service, settings=replace(SETTINGS, outer_drain_limit_s=limit_s)).plan()
    found = next(one for one in made.status.conditions if one.type == "DrainLimited")
    assert found.status == status
    if status == "True":
        # What it says to write is what helps.
        fitting = int(found.message.split("maxRequestSeconds: ")[1].split()[0])
        service = merged(CPU_DEMO, {"admission": {"maxRequestSeconds": fitting}})
        helped = Cluster(service, settings=replace(SETTINGS, outer_drain_limit_s=limit_s)).plan()
        assert [one.status for one in helped.status.conditions if one.type == "DrainLimited"] == ["False"]


def test_every_condition_is_there_from_the_first_plan_on() -> None:
    made = Cluster(EMULATED).plan()
    assert [one.type for one in made.status.conditions] == [
        "Ready",
        "Progressing",
        "ModelLoaded",
        "RouterReady",
        "MetricsAvailable",
        "SLOMet",
        "Feasible",
        "CapacityAvailable",
        "Transitioning",
        "ForeignWriter",
        "DrainLimited",
        "ScalingActive",
    ]
    assert made.status.summary is not None
    assert made.status.summary.replicas == "0/2"


def test_a_condition_keeps_its_time_while_its_status_is_the_same(cluster: Cluster) -> None:
    before = {one.type: one for one in cluster.status.conditions}
    cluster.now_s += 60
    pod = cluster.serving()[0]
    cluster.make_ready(pod, ready=False)
    cluster.reconcile()
    after = {one.type: one for one in cluster.status.conditions}
    assert after["Ready"].reason == "SomeReplicasReady"
    assert after["Ready"].last_transition_time == before["Ready"].last_transition_time
    assert after["Progressing"].last_transition_time > before["Progressing"].last_transition_time
    assert cluster.status.summary is not None
    assert cluster.status.summary.replicas == "2/3"


def test_ready_means_that_requests_are_answered(cluster: Cluster) -> None:
    for pod in cluster.pods:
        if pod not in cluster.engine_pods():
            cluster.make_ready(pod, ready=False)
    cluster.run_controllers()
    cluster.reconcile()
    assert cluster.condition("Ready")[:2] == ("False", "RouterNotReady")
    for pod in cluster.engine_pods():
        cluster.make_ready(pod, ready=False)
    made = cluster.reconcile()
    assert cluster.condition("Ready")[:2] == ("False", "NoReplicaReady")
    assert made.events == ()


def test_losing_readiness_is_an_event_and_so_is_its_return(cluster: Cluster) -> None:
    for pod in cluster.engine_pods():
        cluster.make_ready(pod, ready=False)
    assert [(one.type, one.reason) for one in cluster.reconcile().events] == [("Warning", "NoReplicaReady")]
    for pod in cluster.engine_pods():
        cluster.make_ready(pod)
    assert [(one.type, one.reason) for one in cluster.reconcile().events] == [("Normal", "Ready")]


def test_an_emulated_service_says_that_it_is() -> None:
    cluster = Cluster(EMULATED)
    cluster.settle()
    assert cluster.condition("ModelLoaded")[:2] == ("True", "Emulated")
    assert cluster.status.summary is not None
    assert cluster.status.summary.reason == "Emulated"


def test_on_a_cpu_no_gpus_are_held() -> None:
    cluster = Cluster(CPU_DEMO)
    cluster.settle()
    assert cluster.status.gpus is not None
    assert cluster.status.gpus.serving == 0


def test_a_failed_start_tells_its_stage() -> None:
    cluster = Cluster(EMULATED)
    cluster.reconcile()
    cluster.run_controllers()
    cluster.say_verdict(cluster.live()[0], '{"verdict":"Failed","stage":"weights","message":"no space left"}')
    made = cluster.reconcile()
    assert cluster.condition("ModelLoaded") == ("False", "StartFailed", "weights: no space left")
    assert "no space left" in cluster.condition("Ready")[2]
    assert ("Warning", "StartFailed") in {(one.type, one.reason) for one in made.events}
    assert list(cluster.variants().values()) == [2]


def test_a_pod_without_a_node_is_a_lack_of_capacity() -> None:
    cluster = Cluster(EMULATED)
    cluster.reconcile()
    cluster.run_controllers()
    cluster.reconcile()
    assert cluster.condition("CapacityAvailable")[:2] == ("Unknown", "Scheduling")
    cluster.make_unschedulable(cluster.live()[0])
    made = cluster.reconcile()
    assert cluster.condition("CapacityAvailable")[:2] == ("False", "Unschedulable")
    assert ("Warning", "Unschedulable") in {(one.type, one.reason) for one in made.events}
    assert cluster.status.summary is not None
    assert cluster.status.summary.reason == "Unschedulable"


def test_a_gated_pod_is_not_unschedulable() -> None:
    cluster = Cluster(EMULATED)
    cluster.reconcile()
    cluster.run_controllers()
    pod = cluster.pods[cluster.live()[0]]
    cluster._condition(pod, "PodScheduled", "False", "SchedulingGated")
    cluster.reconcile()
    assert cluster.condition("CapacityAvailable")[:2] == ("Unknown", "SchedulingGated")


def test_a_first_start_that_takes_too_long_is_told_and_left() -> None:
    cluster = Cluster(EMULATED)
    made = cluster.reconcile()
    cluster.run_controllers()
    made = cluster.reconcile()
    assert made.requeue_after_s is not None
    cluster.now_s += made.requeue_after_s
    cluster.reconcile()
    assert cluster.condition("Progressing")[:2] == ("False", "ReadyDeadlineExceeded")
    assert list(cluster.variants().values()) == [2]


def test_what_a_pod_says_of_its_model_stands_in_the_status(cluster: Cluster) -> None:
    observed = cluster.observe()
    pods = tuple(replace(pod, info=INFO) if pod.component == "engine" else pod for pod in observed.pods)
    model = plan(replace(observed, pods=pods), settings=SETTINGS).status.model
    assert model is not None
    assert (model.revision, model.attention_heads, model.kv_heads, model.weights_bytes) == ("abc", 64, 8, 7)


def test_what_nobody_said_of_the_model_is_absent(cluster: Cluster) -> None:
    assert cluster.status.model is None
    assert "model" not in cluster.service["status"]


def test_the_variants_show_their_pods(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"tensorParallelSize": 8, "replicas": 1}})
    cluster.reconcile()
    cluster.run_controllers()
    cluster.reconcile()
    found = {one.tensor_parallel_size: one for one in cluster.status.variants}
    assert (found[4].ready, found[4].starting, found[8].starting) == (3, 0, 1)
    assert cluster.status.gpus is not None
    assert (cluster.status.gpus.serving, cluster.status.gpus.starting) == (12, 8)
    assert cluster.status.summary is not None
    assert cluster.status.summary.reason == "Starting"


def test_pods_whose_deployment_is_gone_are_still_counted(cluster: Cluster) -> None:
    (variant,) = cluster.variants()
    cluster.edit({"paused": True})
    cluster.delete_child("Deployment", f"chat-{variant}")
    cluster.reconcile()
    (found,) = cluster.status.variants
    assert (found.ready, found.draining) == (0, 3)
    assert cluster.status.gpus is not None
    assert cluster.status.gpus.draining == 12


def test_the_last_safe_shape_is_the_last_one_at_full_strength(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"replicas": 5}})
    cluster.reconcile()
    shape = cluster.status.shape
    assert shape is not None
    assert shape.last_safe is not None
    assert shape.desired is not None
    assert shape.current is not None
    assert (shape.current.replicas, shape.desired.replicas, shape.last_safe.replicas) == (3, 5, 3)
    cluster.settle()
    assert cluster.status.shape is not None
    assert cluster.status.shape.last_safe == cluster.status.shape.desired


@pytest.mark.parametrize("mode", ["Auto", "Advisory"])
def test_modes_that_nothing_drives_say_so(mode: str) -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": mode}}))
    cluster.settle()
    status, reason, message = cluster.condition("ScalingActive")
    assert (status, reason) == ("False", "NotDriven")
    assert "2×TP1" in message


def test_the_status_of_an_unchanged_service_is_written_the_same(cluster: Cluster) -> None:
    cluster.reconcile()
    before = cluster.status
    cluster.now_s += 3600
    assert cluster.plan().status == before
