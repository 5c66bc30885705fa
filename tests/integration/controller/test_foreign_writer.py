"""A field of ours that another manager writes: named, left alone for the grace time, then taken back, or
kept."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.controller.cluster import Cluster, eventually, service
from tests.integration.controller.operators import Operator, Operators

pytestmark = pytest.mark.apiserver

GRACE_S = 2.0
"""As `Operators` starts them."""


def _one_engine(cluster: Cluster) -> str:
    found = eventually(lambda: cluster.engines("chat"), within_s=30)
    return next(iter(found))


THEIRS = 9999


def _write(cluster: Cluster) -> None:
    """As a person with `kubectl edit` would: another target of the port."""
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": THEIRS}]
    cluster.patch("Service", "chat", {"spec": {"ports": ports}}, manager="somebody-else")


def _target(cluster: Cluster) -> int | str:
    live = cluster.get("Service", "chat")
    assert live is not None
    target: int | str = live["spec"]["ports"][0]["targetPort"]
    return target


def _replicas(cluster: Cluster, engine: str) -> int:
    count: int = cluster.engines("chat")[engine]["spec"]["replicas"]
    return count


@pytest.fixture
def operator(cluster: Cluster, operators: Operators) -> Operator:
    running = operators.start().await_leading()
    cluster.create("InferenceService", service("chat"))
    eventually(lambda: cluster.get("Service", "chat"), within_s=30)
    eventually(lambda: cluster.condition("chat", "ForeignWriter"), within_s=30)
    return running


def _foreign(cluster: Cluster) -> dict[str, Any]:
    return eventually(
        lambda: cluster.condition("chat", "ForeignWriter"), holds=lambda c: c.get("status") == "True"
    )


def test_it_is_named_left_for_the_grace_and_taken_back(cluster: Cluster, operator: Operator) -> None:
    _write(cluster)
    since_s = time.monotonic()
    said = _foreign(cluster)
    assert "somebody-else" in said["message"]
    assert "chat" in said["message"]
    while time.monotonic() - since_s < GRACE_S - 0.7:
        assert _target(cluster) == THEIRS
        time.sleep(0.1)
    eventually(lambda: _target(cluster) != THEIRS, within_s=20)
    eventually(lambda: cluster.condition("chat", "ForeignWriter")["status"] == "False", within_s=20)
    assert operator.is_running


def test_an_annotation_leaves_it_to_them_for_good(cluster: Cluster, operator: Operator) -> None:
    cluster.patch(
        "InferenceService", "chat", {"metadata": {"annotations": {"paceline.dev/foreign-writer": "keep"}}}
    )
    _write(cluster)
    said = _foreign(cluster)
    assert "somebody-else" in said["message"]
    time.sleep(GRACE_S + 3)
    assert _target(cluster) == THEIRS
    assert cluster.condition("chat", "ForeignWriter")["status"] == "True"
    assert operator.is_running


def test_the_grace_outlives_a_restart_of_the_operator(
    cluster: Cluster, operator: Operator, operators: Operators
) -> None:
    _write(cluster)
    _foreign(cluster)
    operator.kill()
    operators.start("--foreign-writer-grace-seconds=6").await_leading()
    eventually(lambda: _target(cluster) != THEIRS, within_s=30)


def test_a_forced_apply_of_another_manager_is_a_conflict_that_is_named(
    cluster: Cluster, operator: Operator
) -> None:
    """By server-side apply, as a GitOps tool does it: the same field then has another owner."""
    engine = _one_engine(cluster)
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": engine},
        "spec": {"minReadySeconds": 7, "replicas": 3},
    }
    cluster.call(
        "PATCH",
        cluster.path("Deployment", engine),
        body,
        content_type="application/apply-patch+yaml",
        fieldManager="gitops",
        force="true",
    )
    since_s = time.monotonic()
    said = _foreign(cluster)
    assert "gitops" in said["message"]
    assert ".spec.replicas" in said["message"]
    while time.monotonic() - since_s < GRACE_S - 0.7:
        assert _replicas(cluster, engine) == 3
        time.sleep(0.1)
    eventually(lambda: _replicas(cluster, engine) == 1, within_s=20)
    assert operator.is_running


def test_what_the_api_server_refuses_is_told_in_an_event(cluster: Cluster, operator: Operator) -> None:
    """Somebody put a port of the same name beside ours: both together are no valid Service."""
    ports = [{"name": "http", "port": 81, "protocol": "TCP"}]
    cluster.patch("Service", "chat", {"spec": {"ports": ports}}, manager="somebody-else")
    told = eventually(
        lambda: [one for one in cluster.events("chat") if one["reason"] == "ApplyRejected"], within_s=20
    )
    assert "Service chat" in told[0]["message"]
    # The same again is one event with a count, and the attempts become rarer.
    eventually(lambda: cluster.events("chat"), holds=lambda all_: any(one["count"] > 1 for one in all_))
    assert len([one for one in cluster.events("chat") if one["reason"] == "ApplyRejected"]) == 1
    assert operator.is_running


def test_replicas_written_through_scale_are_never_forced(cluster: Cluster, operator: Operator) -> None:
    engine = _one_engine(cluster)
    cluster.patch("Deployment", engine, {"spec": {"replicas": 2}}, "scale", manager="an-autoscaler")
    said = _foreign(cluster)
    assert "an-autoscaler" in said["message"]
    time.sleep(GRACE_S + 3)
    assert _replicas(cluster, engine) == 2
    assert operator.is_running


def test_a_field_that_somebody_removed_is_put_back_at_once(cluster: Cluster, operator: Operator) -> None:
    cluster.patch("ConfigMap", "chat-slo", {"data": {"targets.json": None}}, manager="somebody-else")
    eventually(
        lambda: "targets.json" in ((cluster.get("ConfigMap", "chat-slo") or {}).get("data") or {}), within_s=5
    )
    assert operator.is_running
