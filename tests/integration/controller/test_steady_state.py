"""Nothing changes where nothing has to: no writes at rest, none by a restart, no new pods by another
version."""

from __future__ import annotations

import time

import pytest

from tests.integration.controller.cluster import Cluster, eventually, expected_children, service
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.operators import Operator, Operators

pytestmark = pytest.mark.apiserver

REST_S = 10.0


def _come_to_rest(cluster: Cluster, operator: Operator) -> None:
    """All pods Ready, and three seconds without a write."""
    eventually(
        lambda: cluster.condition("chat", "Ready"), holds=lambda c: c.get("status") == "True", within_s=40
    )
    last, since_s = operator.writes(), time.monotonic()
    deadline_s = time.monotonic() + 40
    while time.monotonic() - since_s < 3:
        assert time.monotonic() < deadline_s, operator.log.read_text()[-3000:]
        time.sleep(0.2)
        if (now := operator.writes()) != last:
            last, since_s = now, time.monotonic()


def test_at_rest_the_operator_writes_nothing(cluster: Cluster, operators: Operators) -> None:
    """With a resync every second, so that it looks ten times and finds nothing to do."""
    operator = operators.start("--resync-seconds=1").await_leading()
    cluster.create("InferenceService", service("chat", replicas=2))
    with kubelet(cluster):
        _come_to_rest(cluster, operator)
        before, children = operator.scrape(), cluster.children("chat", versions=True)
        time.sleep(REST_S)
        after = operator.scrape()
        looks = 'paceline_operator_reconcile_seconds_count{outcome="ok"}'
        assert after[looks] - before[looks] >= 5
        for name in after:
            if name.startswith("paceline_operator_writes_total"):
                assert after[name] == before[name], name
        assert cluster.children("chat", versions=True) == children


def test_a_restarted_operator_writes_nothing(cluster: Cluster, operators: Operators) -> None:
    operator = operators.start().await_leading()
    cluster.create("InferenceService", service("chat", replicas=2))
    with kubelet(cluster):
        _come_to_rest(cluster, operator)
        children = cluster.children("chat", versions=True)
        live = cluster.get("InferenceService", "chat")
        assert operator.terminate() == 0
        successor = operators.start().await_leading()
        looks = 'paceline_operator_reconcile_seconds_count{outcome="ok"}'
        eventually(lambda: successor.scrape().get(looks, 0) >= 1)
        time.sleep(3)
        assert successor.writes() == 0
        assert cluster.children("chat", versions=True) == children
        assert cluster.get("InferenceService", "chat") == live


def test_another_version_with_other_default_images_restarts_no_engine_pod(
    cluster: Cluster, operators: Operators
) -> None:
    operator = operators.start().await_leading()
    cluster.create("InferenceService", service("chat", replicas=2))
    with kubelet(cluster):
        _come_to_rest(cluster, operator)
        engines = cluster.engines("chat")
        pods = _engine_pods(cluster)
        assert operator.terminate() == 0
        successor = operators.start(
            "--runtime-image-cpu=example.test/new:2", "--emulator-image=example.test/new:2"
        ).await_leading()
        _come_to_rest(cluster, successor)
        time.sleep(3)
        assert _engine_pods(cluster) == pods
        after = cluster.engines("chat")
        assert {name: one["metadata"]["generation"] for name, one in after.items()} == {
            name: one["metadata"]["generation"] for name, one in engines.items()
        }
        assert {name: one["spec"] for name, one in after.items()} == {
            name: one["spec"] for name, one in engines.items()
        }


def _engine_pods(cluster: Cluster) -> set[str]:
    found = cluster.objects("Pod", selector="paceline.dev/component=engine")
    return {one["metadata"]["uid"] for one in found}


def test_spec_edits_that_shape_no_engine_pod_change_no_engine(cluster: Cluster, operators: Operators) -> None:
    operator = operators.start().await_leading()
    cluster.create("InferenceService", service("chat", replicas=2))
    with kubelet(cluster):
        _come_to_rest(cluster, operator)
        assert set(cluster.children("chat")) > expected_children("chat")
        pods = _engine_pods(cluster)
        before = cluster.get("ConfigMap", "chat-slo")
        cluster.patch("InferenceService", "chat", {"spec": {"slo": {"preset": "Interactive"}}})
        eventually(
            lambda: (cluster.get("ConfigMap", "chat-slo") or {}).get("data"),
            holds=lambda data: before is not None and data != before["data"],
        )
        _come_to_rest(cluster, operator)
        assert _engine_pods(cluster) == pods
