"""Verify the plan as a whole: what it leaves alone, what it refuses to take, and that it is a function."""

from __future__ import annotations

import copy
import json

import pytest

from tests.unit.fleet.services import CPU_DEMO, EMULATED, ONE_GPU, SEVENTY_B, merged
from tests.unit.fleet.simulated_cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(EMULATED)
    made.settle()
    return made


@pytest.mark.parametrize(
    "spec", [CPU_DEMO, ONE_GPU, SEVENTY_B, EMULATED], ids=["cpu", "8b", "70b", "emulated"]
)
def test_the_same_observation_gives_the_same_plan(spec: dict[str, object]) -> None:
    cluster = Cluster(spec)
    assert cluster.plan() == cluster.plan()


def test_a_settled_service_is_left_as_it_is(cluster: Cluster) -> None:
    before = copy.deepcopy(cluster.children)
    made = cluster.reconcile()
    assert made.events == ()
    assert made.delete == ()
    assert not made.status_first
    assert not any(one.force for one in made.apply)
    assert cluster.children == before


def test_a_plan_does_not_change_what_it_was_given(cluster: Cluster) -> None:
    observed = cluster.observe()
    before = copy.deepcopy(observed.children)
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    cluster.plan()
    assert observed.children == before


def test_a_paused_service_changes_nothing_but_its_status(cluster: Cluster) -> None:
    cluster.edit({"paused": True, "scaling": {"replicas": 5, "tensorParallelSize": 3}})
    cluster.delete_child("Service", "chat")
    made = cluster.reconcile()
    assert made.apply == ()
    assert made.delete == ()
    assert cluster.condition("Progressing")[:2] == ("False", "Paused")
    assert cluster.status.observed_generation == 2
    cluster.edit({"paused": False})
    cluster.settle()
    ((name, replicas),) = cluster.variants().items()
    assert (name[:4], replicas) == ("tp3-", 5)
    assert ("Service", "chat") in cluster.children


def test_a_paused_change_stays_where_it_is(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    cluster.reconcile()
    cluster.run_controllers()
    cluster.edit({"paused": True})
    cluster.now_s += 5000
    cluster.reconcile()
    assert cluster.status.transition is not None
    assert cluster.status.transition.step == "Starting"
    assert list(cluster.variants().values()) == [2, 2]


def test_a_service_that_is_being_deleted_is_left_to_the_garbage_collector(cluster: Cluster) -> None:
    cluster.service["metadata"]["deletionTimestamp"] = "2026-11-22T08:00:00Z"
    cluster.delete_child("Service", "chat")
    made = cluster.plan()
    assert (made.apply, made.delete, made.events) == ((), (), ())


def test_a_deleted_child_comes_back_at_once(cluster: Cluster) -> None:
    for kind, name in list(cluster.children):
        cluster.delete_child(kind, name)
        cluster.reconcile()
        assert (kind, name) in cluster.children


def test_a_child_that_is_still_being_deleted_is_not_written_to(cluster: Cluster) -> None:
    cluster.children["ConfigMap", "chat-slo"]["metadata"]["deletionTimestamp"] = "2026-11-22T08:00:00Z"
    assert ("ConfigMap", "chat-slo") not in {(one.kind, one.name) for one in cluster.plan().apply}


def test_an_object_that_was_there_before_is_never_taken_over() -> None:
    cluster = Cluster(EMULATED)
    cluster.children["Service", "chat"] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chat", "namespace": "team-a", "uid": "theirs"},
        "spec": {"selector": {"app": "other"}},
    }
    before = copy.deepcopy(cluster.children["Service", "chat"])
    made = cluster.reconcile()
    assert cluster.children["Service", "chat"] == before
    assert ("Service", "chat") not in {(one.kind, one.name) for one in made.apply}
    assert cluster.condition("Progressing")[:2] == ("False", "NameTaken")
    assert "Service chat" in cluster.condition("Progressing")[2]
    assert ("Warning", "NameTaken") in {(one.type, one.reason) for one in made.events}
    assert "NameTaken" not in {one.reason for one in cluster.reconcile().events}


def test_the_children_of_a_deleted_service_of_the_same_name_are_not_ours(cluster: Cluster) -> None:
    cluster.service["metadata"]["uid"] = "made-anew"
    del cluster.service["status"]
    made = cluster.plan()
    assert made.apply == () or not {one.name for one in made.apply} & {"chat-router", "chat"}
    assert made.delete == ()


def test_every_apply_to_a_child_is_bound_to_that_very_object(cluster: Cluster) -> None:
    for action in cluster.plan().apply:
        live = cluster.children[action.kind, action.name]
        assert action.uid == live["metadata"]["uid"]
        assert action.body()["metadata"]["uid"] == action.uid
        assert "uid" not in action.object["metadata"]


def test_a_delete_is_bound_to_that_very_object(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    deletes = []
    for _ in range(8):
        made = cluster.plan()
        deletes += [(one, cluster.children[one.kind, one.name]["metadata"]["uid"]) for one in made.delete]
        cluster.carry_out(made)
        cluster.run_controllers()
        for pod in cluster.live():
            cluster.make_ready(pod)
        cluster.end_drains()
        cluster.now_s += 10
    ((delete, uid),) = deletes
    assert delete.uid == uid
    assert delete.status_first


def test_nothing_is_made_for_a_spec_that_the_facts_refuse() -> None:
    """Nine heads in two parts: known of the bundled model before anything is asked."""
    cluster = Cluster(merged(CPU_DEMO, {"scaling": {"tensorParallelSize": 2}}))
    made = cluster.reconcile()
    assert made.apply == ()
    assert cluster.condition("Feasible")[:2] == ("False", "Infeasible")
    assert cluster.status.refused is not None
    assert cluster.status.refused.field == "spec.scaling.tensorParallelSize"
    assert "spec.scaling.tensorParallelSize" in cluster.condition("Feasible")[2]
    assert [(one.type, one.reason) for one in made.events] == [("Warning", "Infeasible")]
    assert cluster.reconcile().events == ()
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    cluster.settle()
    assert len(cluster.serving()) == 1
    assert cluster.condition("Feasible")[:2] == ("Unknown", "NotMeasured")


def test_a_refused_change_leaves_the_running_pods_and_scales_them_as_asked() -> None:
    cluster = Cluster(CPU_DEMO)
    cluster.settle()
    (variant,) = cluster.variants()
    pods = set(cluster.engine_pods())
    cluster.edit({"model": {"kvCache": {"size": "64Mi"}, "maxModelTokens": 8192}, "scaling": {"replicas": 2}})
    cluster.settle()
    assert cluster.condition("Feasible")[0] == "False"
    assert cluster.variants() == {variant: 2}
    assert pods <= set(cluster.engine_pods())


def test_a_stored_refusal_binds_only_its_generation(cluster: Cluster) -> None:
    cluster.service["status"]["refused"] = {"generation": 1, "reason": "Refused", "message": "no"}
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    cluster.reconcile()
    assert len(cluster.variants()) == 2


def test_the_commit_that_serves_is_kept_through_a_change_of_size() -> None:
    """A new tensor-parallel size must not bring new weights with it."""
    commit = "5206a32a0bd3067aef1ce90f5528ade7d866253f"
    cluster = Cluster(merged(ONE_GPU, {"scaling": {"mode": "Manual"}}))
    cluster.settle()
    cluster.service["status"]["model"] = {"revision": commit}
    cluster.edit({"scaling": {"tensorParallelSize": 2}})
    cluster.reconcile()
    (new,) = [name for name in cluster.variants() if name.startswith("tp2-")]
    args = cluster.engine(new)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--model-uri") + 1] == f"hf://meta-llama/Llama-3.1-8B-Instruct@{commit}"


def test_another_uri_is_not_pinned_to_the_old_commit() -> None:
    cluster = Cluster(merged(ONE_GPU, {"scaling": {"mode": "Manual"}}))
    cluster.settle()
    (old,) = cluster.variants()
    cluster.service["status"]["model"] = {"revision": "5206a32a0bd3067aef1ce90f5528ade7d866253f"}
    cluster.edit({"model": {"uri": "hf://org/other@main"}})
    cluster.reconcile()
    (new,) = set(cluster.variants()) - {old}
    args = cluster.engine(new)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--model-uri") + 1] == "hf://org/other@main"


def test_a_plan_can_be_written_down(cluster: Cluster) -> None:
    """Nothing in it but what JSON knows: it can be logged and replayed."""
    made = cluster.plan()
    assert json.dumps([one.body() for one in made.apply])
    assert json.dumps(made.status.to_manifest())
