"""Verify that a field of ours in another's hands is left for its grace time, told of, and then taken back."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from paceline.fleet import Conflict
from paceline.fleet.foreign import claim, path_text
from paceline.fleet.names import ANNOTATION_INPUTS, ANNOTATION_TEMPLATE
from paceline.fleet.timestamps import rfc3339
from tests.unit.fleet.services import EMULATED, NOW_S
from tests.unit.fleet.simulated_cluster import Cluster


def owned(
    cluster: Cluster, child: dict[str, Any], *, manager: str, fields: dict[str, Any], **entry: Any
) -> None:
    """The entry that the API server keeps of another manager's write; what it took is no longer ours."""
    ours = child["metadata"]["managedFields"][0]["fieldsV1"]
    _take(ours, fields)
    child["metadata"]["managedFields"].append(
        {
            "manager": manager,
            "operation": "Update",
            "time": rfc3339(cluster.now_s),
            "fieldsV1": fields,
            **entry,
        }
    )


def _take(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for key, inner in theirs.items():
        if key in ours and inner:
            _take(ours[key], inner)
        else:
            ours.pop(key, None)


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(EMULATED)
    made.settle()
    return made


def change_port(cluster: Cluster, *, manager: str = "kubectl-edit") -> dict[str, Any]:
    """Somebody changes the selector of the public Service."""
    child = cluster.children["Service", "chat"]
    child["spec"]["type"] = "NodePort"
    owned(cluster, child, manager=manager, fields={"f:spec": {"f:type": {}}})
    return child


def scale_engine(cluster: Cluster, replicas: int, *, manager: str, **entry: Any) -> dict[str, Any]:
    (variant,) = cluster.variants()
    child = cluster.engine(variant)
    child["spec"]["replicas"] = replicas
    owned(cluster, child, manager=manager, fields={"f:spec": {"f:replicas": {}}}, **entry)
    return child


def sent(cluster: Cluster, kind: str, name: str) -> Any:
    return next(one for one in cluster.plan().apply if (one.kind, one.name) == (kind, name))


def test_a_changed_field_is_left_out_for_the_grace_time(cluster: Cluster) -> None:
    child = change_port(cluster)
    cluster.now_s += 299
    action = sent(cluster, "Service", "chat")
    assert "type" not in action.object["spec"]
    assert not action.force
    cluster.reconcile()
    assert child["spec"]["type"] == "NodePort"


def test_the_condition_names_manager_and_field(cluster: Cluster) -> None:
    change_port(cluster)
    made = cluster.reconcile()
    status, reason, message = cluster.condition("ForeignWriter")
    assert (status, reason) == ("True", "FieldsHeld")
    assert "Service chat .spec.type held by kubectl-edit" in message
    assert ("Warning", "FieldsHeld") in {(one.type, one.reason) for one in made.events}
    assert cluster.status.summary is not None
    assert cluster.status.summary.reason == "ForeignWriter"


def test_after_the_grace_time_the_field_is_taken_back_by_force(cluster: Cluster) -> None:
    change_port(cluster)
    cluster.reconcile()
    cluster.now_s += 301
    action = sent(cluster, "Service", "chat")
    assert action.force
    assert action.object["spec"]["type"] == "ClusterIP"
    made = cluster.reconcile()
    assert "FieldReclaimed" in {one.reason for one in made.events}


def test_the_plan_asks_to_be_called_when_the_grace_time_ends(cluster: Cluster) -> None:
    change_port(cluster)
    made = cluster.reconcile()
    assert made.requeue_after_s is not None
    assert 299 <= made.requeue_after_s <= 302


def test_writing_again_and_again_does_not_renew_the_grace_time(cluster: Cluster) -> None:
    child = change_port(cluster)
    cluster.reconcile()
    for _ in range(3):
        cluster.now_s += 101
        child["metadata"]["managedFields"][-1]["time"] = rfc3339(cluster.now_s)
        action = sent(cluster, "Service", "chat")
        cluster.reconcile()
    assert action.force


def test_the_annotation_keeps_the_field_with_the_other_for_good(cluster: Cluster) -> None:
    cluster.service["metadata"]["annotations"] = {"paceline.dev/foreign-writer": "keep"}
    change_port(cluster)
    cluster.now_s += 10_000
    action = sent(cluster, "Service", "chat")
    assert "type" not in action.object["spec"]
    assert not action.force


def test_everything_else_of_the_object_is_applied_meanwhile(cluster: Cluster) -> None:
    scale_engine(cluster, 5, manager="kubectl")
    (variant,) = cluster.variants()
    action = sent(cluster, "Deployment", f"chat-{variant}")
    assert "replicas" not in action.object["spec"]
    assert action.object["spec"]["template"]


def test_replicas_of_an_autoscaler_are_never_forced(cluster: Cluster) -> None:
    scale_engine(cluster, 5, manager="kube-controller-manager", subresource="scale")
    cluster.now_s += 10_000
    (variant,) = cluster.variants()
    action = sent(cluster, "Deployment", f"chat-{variant}")
    assert not action.force
    assert "replicas" not in action.object["spec"]
    cluster.reconcile()
    assert cluster.condition("ForeignWriter")[:2] == ("True", "Autoscaler")


def test_replicas_that_an_autoscaler_shares_are_not_forced_either(cluster: Cluster) -> None:
    """It agreed with us until the spec changed."""
    scale_engine(cluster, 2, manager="kube-controller-manager", subresource="scale")
    cluster.reconcile()
    cluster.edit({"scaling": {"replicas": 3}})
    cluster.now_s += 10_000
    made = cluster.reconcile()
    assert list(cluster.variants().values()) == [2]
    assert "ScaledUp" not in {one.reason for one in made.events}


@pytest.mark.parametrize("replicas", [1, 4])
def test_replicas_scaled_by_a_person_come_back_after_the_grace_time(cluster: Cluster, replicas: int) -> None:
    scale_engine(cluster, replicas, manager="kubectl", subresource="scale")
    cluster.run_controllers()
    for _ in range(3):
        cluster.now_s += 90
        made = cluster.reconcile()
        assert list(cluster.variants().values()) == [replicas]
        assert not made.status_first
    cluster.now_s += 90
    cluster.settle()
    assert list(cluster.variants().values()) == [2]


def test_no_change_begins_while_an_autoscaler_holds_the_replicas(cluster: Cluster) -> None:
    scale_engine(cluster, 2, manager="keda-operator", subresource="scale")
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    cluster.reconcile()
    assert len(cluster.variants()) == 1
    assert cluster.condition("Progressing")[:2] == ("True", "Waiting")


def test_a_field_that_we_share_is_changed_at_once(cluster: Cluster) -> None:
    """Others agreed with us until now: nobody took anything."""
    (variant,) = cluster.variants()
    child = cluster.engine(variant)
    child["metadata"]["managedFields"].append(
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    )
    cluster.edit({"scaling": {"replicas": 3}})
    action = sent(cluster, "Deployment", f"chat-{variant}")
    assert action.force
    assert action.object["spec"]["replicas"] == 3
    assert cluster.plan().status.conditions
    assert cluster.reconcile().status.condition("ForeignWriter").status == "False"  # type: ignore[union-attr]


def test_a_field_that_was_removed_comes_back_at_once(cluster: Cluster) -> None:
    del cluster.children["Service", "chat"]["spec"]["selector"]
    action = sent(cluster, "Service", "chat")
    assert action.object["spec"]["selector"]
    assert not action.force


def test_the_status_that_controllers_write_is_nobodys_business(cluster: Cluster) -> None:
    (variant,) = cluster.variants()
    child = cluster.engine(variant)
    child["spec"]["replicas"] = 9
    child["metadata"]["managedFields"].append(
        {
            "manager": "kube-controller-manager",
            "operation": "Update",
            "subresource": "status",
            "fieldsV1": {"f:spec": {"f:replicas": {}}, "f:status": {}},
        }
    )
    assert not sent(cluster, "Deployment", f"chat-{variant}").force


def test_a_conflict_that_only_the_controller_saw_is_honoured_too() -> None:
    desired = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chat", "labels": {"app.kubernetes.io/name": "x"}},
        "spec": {"type": "ClusterIP"},
    }
    conflict = Conflict(
        kind="Service",
        name="chat",
        manager="other",
        fields=(".spec.type", ".metadata.labels.app.kubernetes.io/name"),
        first_seen_s=NOW_S,
    )
    found = claim(
        desired,
        live={"metadata": {}, "spec": {}},
        conflicts=[conflict],
        annotations={},
        told="",
        now_s=NOW_S + 10,
        grace_s=300,
    )
    assert found.object["spec"] == {}
    assert found.object["metadata"]["labels"] == {}
    assert {one.text for one in found.foreign} == set(conflict.fields)
    forced = claim(
        desired,
        live={"metadata": {}, "spec": {}},
        conflicts=[conflict],
        annotations={},
        told="",
        now_s=NOW_S + 300,
        grace_s=300,
    )
    assert forced.force
    assert forced.object == desired


def test_one_item_of_a_list_is_told_from_the_next() -> None:
    """An injector changes the image of our container, beside one of its own."""
    desired = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat-tp1-x"},
        "spec": {
            "template": {"spec": {"containers": [{"name": "engine", "image": "ours:1", "args": ["serve"]}]}}
        },
    }
    theirs: dict[str, Any] = {
        'k:{"name":"engine"}': {"f:image": {}},
        'k:{"name":"sidecar"}': {".": {}, "f:image": {}},
    }
    ours: dict[str, Any] = {'k:{"name":"engine"}': {".": {}, "f:name": {}, "f:args": {}}}

    def fields(containers: dict[str, Any]) -> dict[str, Any]:
        return {"f:spec": {"f:template": {"f:spec": {"f:containers": containers}}}}

    live = {
        "metadata": {
            "managedFields": [
                {"manager": "paceline", "operation": "Apply", "fieldsV1": fields(ours)},
                {
                    "manager": "injector",
                    "operation": "Update",
                    "time": rfc3339(NOW_S),
                    "fieldsV1": fields(theirs),
                },
            ]
        },
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {"name": "sidecar", "image": "side:1"},
                        {"name": "engine", "image": "theirs:1", "args": ["serve"]},
                    ]
                }
            }
        },
    }
    found = claim(desired, live=live, conflicts=[], annotations={}, told="", now_s=NOW_S, grace_s=300)
    (one,) = found.foreign
    assert one.text == '.spec.template.spec.containers[name="engine"].image'
    (container,) = found.object["spec"]["template"]["spec"]["containers"]
    assert container == {"name": "engine", "args": ["serve"]}


def test_a_template_that_somebody_changed_goes_back_to_what_it_was_made_from(cluster: Cluster) -> None:
    (variant,) = cluster.variants()
    child = cluster.engine(variant)
    before = copy.deepcopy(child["spec"]["template"])
    child["spec"]["template"]["spec"]["containers"][0]["image"] = "theirs:1"
    fields: dict[str, Any] = {"f:spec": {"f:template": {"f:spec": {"f:containers": {}}}}}
    owned(cluster, child, manager="kubectl-set-image", fields=fields)
    cluster.reconcile()
    assert cluster.engine(variant)["spec"]["template"] != before
    cluster.now_s += 301
    cluster.settle()
    assert cluster.engine(variant)["spec"]["template"] == before


@pytest.mark.parametrize("lost", ["labels", "annotations"])
def test_an_engine_whose_metadata_was_taken_off_is_still_known(cluster: Cluster, lost: str) -> None:
    (variant,) = cluster.variants()
    pods = set(cluster.engine_pods())
    del cluster.engine(variant)["metadata"][lost]
    cluster.reconcile()
    cluster.settle()
    assert cluster.variants() == {variant: 2}
    assert set(cluster.engine_pods()) == pods
    assert {ANNOTATION_INPUTS, ANNOTATION_TEMPLATE} <= cluster.engine(variant)["metadata"][
        "annotations"
    ].keys()
    assert cluster.engine(variant)["metadata"]["labels"]["paceline.dev/variant"] == variant


def test_paths_read_as_the_api_server_writes_them() -> None:
    path = ("spec", "ports", (("port", 80), ("protocol", "TCP")), "targetPort")
    assert path_text(path) == '.spec.ports[port=80,protocol="TCP"].targetPort'


def test_a_write_to_scale_that_auto_does_not_follow_is_told(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"mode": "Auto"}})
    cluster.settle()
    cluster.edit({"scaling": {"replicas": 7}})
    cluster.service["metadata"]["managedFields"] = [
        {
            "manager": "kube-controller-manager",
            "operation": "Update",
            "subresource": "scale",
            "fieldsV1": {"f:spec": {"f:scaling": {"f:replicas": {}}}},
        }
    ]
    cluster.reconcile()
    assert list(cluster.variants().values()) == [2]
    status, reason, message = cluster.condition("ForeignWriter")
    assert (status, reason) == ("True", "ScaleNotFollowed")
    assert "kube-controller-manager" in message


def test_in_manual_a_write_to_scale_is_followed(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"replicas": 3}})
    cluster.service["metadata"]["managedFields"] = [
        {
            "manager": "kubectl",
            "operation": "Update",
            "subresource": "scale",
            "fieldsV1": {"f:spec": {"f:scaling": {"f:replicas": {}}}},
        }
    ]
    cluster.settle()
    assert list(cluster.variants().values()) == [3]
    assert cluster.condition("ForeignWriter")[0] == "False"
