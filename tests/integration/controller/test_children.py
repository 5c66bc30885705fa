"""Children of a service: all of them appear, come back when they are lost, and go with it; others' objects
stay."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.controller.cluster import (
    Cluster,
    eventually,
    expected_children,
    pod_monitors,
    service,
)
from tests.integration.controller.operators import Operators

pytestmark = pytest.mark.apiserver


def _complete(cluster: Cluster, name: str) -> dict[tuple[str, str], str]:
    """Wait for the children that every service has, and one engine Deployment."""

    def settled() -> dict[tuple[str, str], str]:
        found = cluster.children(name)
        engines = {("Deployment", engine) for engine in cluster.engines(name)}
        complete = len(engines) == 1 and set(found) - engines == expected_children(name)
        return found if complete else {}

    return eventually(settled, within_s=30)


def _uid(cluster: Cluster, kind: str, name: str) -> str | None:
    found = cluster.get(kind, name)
    return found["metadata"]["uid"] if found is not None else None


def test_a_new_service_gets_its_children_and_a_status(cluster: Cluster, operators: Operators) -> None:
    operators.start().await_leading()
    made = cluster.create("InferenceService", service("chat", replicas=2))
    children = _complete(cluster, "chat")
    owners = {
        owner["uid"]
        for kind, name in children
        if (child := cluster.get(kind, name)) is not None
        for owner in child["metadata"].get("ownerReferences") or ()
    }
    assert owners == {made["metadata"]["uid"]}
    assert [one["spec"]["replicas"] for one in cluster.engines("chat").values()] == [2]
    ready = eventually(lambda: cluster.condition("chat", "Ready"))
    assert ready["status"] == "False"
    live = cluster.get("InferenceService", "chat")
    assert live is not None
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
    assert not live["metadata"].get("finalizers")
    assert not [key for key in live["metadata"].get("annotations") or {} if "kopf" in key]


def test_a_deleted_child_comes_back_at_once(cluster: Cluster, operators: Operators) -> None:
    operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    for lost, uid in _complete(cluster, "chat").items():
        cluster.delete(*lost)
        since_s = time.monotonic()
        eventually(lambda: _uid(cluster, *lost) not in (None, uid), within_s=10)  # noqa: B023
        # The garbage of a Deployment takes its time; the new one does not wait for it.
        assert time.monotonic() - since_s < 3, lost


def test_a_label_that_was_taken_off_is_put_back(cluster: Cluster, operators: Operators) -> None:
    operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    before = _complete(cluster, "chat")
    cluster.patch("ConfigMap", "chat-slo", {"metadata": {"labels": {"paceline.dev/service": None}}})
    eventually(lambda: cluster.children("chat").get(("ConfigMap", "chat-slo")))
    assert cluster.children("chat") == before


def test_a_service_deleted_while_the_operator_is_gone_leaves_nothing(
    cluster: Cluster, operators: Operators
) -> None:
    operator = operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    _complete(cluster, "chat")
    eventually(lambda: cluster.objects("Pod"))
    operator.kill()
    cluster.delete("InferenceService", "chat")
    eventually(lambda: cluster.children("chat"), holds=lambda left: not left, within_s=60)
    eventually(
        lambda: cluster.objects("Pod") + cluster.objects("ReplicaSet"),
        holds=lambda left: not left,
        within_s=60,
    )


def test_a_service_deleted_under_the_operator_leaves_nothing(cluster: Cluster, operators: Operators) -> None:
    """The operator must not make again what the garbage collector takes."""
    operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    _complete(cluster, "chat")
    cluster.delete("InferenceService", "chat")
    eventually(lambda: cluster.children("chat"), holds=lambda left: not left, within_s=60)
    time.sleep(2)
    assert cluster.children("chat") == {}


def test_a_foreground_deletion_ends(cluster: Cluster, operators: Operators) -> None:
    operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    _complete(cluster, "chat")
    cluster.call("DELETE", cluster.path("InferenceService", "chat"), propagationPolicy="Foreground")
    eventually(lambda: cluster.get("InferenceService", "chat"), holds=lambda left: left is None, within_s=60)
    eventually(lambda: cluster.children("chat"), holds=lambda left: not left, within_s=60)


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("ConfigMap", "chat-slo", {"data": {"mine": "1"}}),
        ("Service", "chat", {"spec": {"ports": [{"port": 81}], "selector": {"app": "mine"}}}),
        ("ServiceAccount", "chat-router", {}),
    ],
)
def test_an_object_of_somebody_else_is_never_taken_over(
    cluster: Cluster, operators: Operators, kind: str, name: str, content: dict[str, Any]
) -> None:
    theirs = cluster.create(kind, {"metadata": {"name": name}, **content})
    operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    eventually(lambda: set(cluster.children("chat")) >= expected_children("chat") - {(kind, name)})
    said = eventually(
        lambda: cluster.condition("chat", "Progressing"), holds=lambda c: name in c.get("message", "")
    )
    assert kind in said["message"]
    live = cluster.get(kind, name)
    assert live is not None
    assert live["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]


def test_a_name_that_becomes_free_is_taken(cluster: Cluster, operators: Operators) -> None:
    """No watch tells of the going of an object without our label: it is looked for again."""
    cluster.create("ConfigMap", {"metadata": {"name": "chat-slo"}})
    operators.start("--resync-seconds=10").await_leading()
    cluster.create("InferenceService", service("chat"))
    eventually(
        lambda: set(cluster.children("chat")) >= expected_children("chat") - {("ConfigMap", "chat-slo")}
    )
    cluster.delete("ConfigMap", "chat-slo")
    eventually(lambda: cluster.children("chat").get(("ConfigMap", "chat-slo")), within_s=90)


def test_a_spec_that_got_past_the_schema_is_refused_by_a_condition(
    cluster: Cluster, operators: Operators
) -> None:
    """An unknown field is pruned under a lax validation, and the rest is served; a wrong combination that
    only an older CRD lets through is named."""
    operators.start().await_leading()
    lax = service("chat")
    lax["spec"]["scalling"] = {"mode": "Auto"}
    lax["spec"]["runtime"] = {"sharedMemorysize": "1Gi"}
    cluster.call("POST", cluster.path("InferenceService"), lax, fieldValidation="Ignore")
    _complete(cluster, "chat")
    live = cluster.get("InferenceService", "chat")
    assert live is not None
    assert "scalling" not in live["spec"]


def test_pod_monitors_come_with_their_kind_and_the_operator_outlives_its_end(
    cluster: Cluster, operators: Operators
) -> None:
    operator = operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    _complete(cluster, "chat")
    with pod_monitors(cluster):
        made = eventually(lambda: _uid(cluster, "PodMonitor", "chat"), within_s=90)
        # The new kind is watched like the others.
        time.sleep(3)
        cluster.delete("PodMonitor", "chat")
        eventually(lambda: _uid(cluster, "PodMonitor", "chat") not in (None, made), within_s=5)
    time.sleep(5)
    cluster.delete("ConfigMap", "chat-slo")
    eventually(lambda: cluster.get("ConfigMap", "chat-slo"), within_s=20)
    assert operator.is_running
