"""One leader: the second waits, takes over, and the first never writes again, however it lost the lease."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.controller.cluster import Cluster, eventually, expected_children, service
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.operators import Operator, Operators

pytestmark = pytest.mark.apiserver


def _holder(cluster: Cluster) -> str:
    lease = cluster.get("Lease", "paceline-operator")
    assert lease is not None
    return str(lease["spec"]["holderIdentity"])


def _await_complete(cluster: Cluster, name: str) -> None:
    eventually(lambda: set(cluster.children(name)) > expected_children(name), within_s=60)
    eventually(lambda: cluster.condition(name, "Ready"), within_s=60)


def test_the_second_waits_while_the_first_leads(cluster: Cluster, operators: Operators) -> None:
    first = operators.start().await_leading()
    holder = _holder(cluster)
    second = operators.start()
    eventually(lambda: "lease is held by another" in second.log.read_text(), within_s=30)
    cluster.create("InferenceService", service("chat"))
    eventually(lambda: set(cluster.children("chat")) > expected_children("chat"), within_s=30)
    time.sleep(8)
    assert _holder(cluster) == holder
    assert second.is_running
    assert second.writes() == 0
    assert first.writes() > 0


def test_a_leader_that_ends_in_order_is_followed_at_once(cluster: Cluster, operators: Operators) -> None:
    first = operators.start(lease_s=60).await_leading()
    second = operators.start(lease_s=60)
    eventually(lambda: "lease is held by another" in second.log.read_text(), within_s=30)
    since_s = time.monotonic()
    assert first.terminate() == 0
    second.await_leading()
    # The lease lasts a minute; released, it is taken at the next look (a sixth of that).
    assert time.monotonic() - since_s < 20


def test_a_frozen_leader_that_wakes_up_writes_nothing_and_ends(
    cluster: Cluster, operators: Operators
) -> None:
    """It is frozen with work at hand: services that were created in the same moment."""
    first = operators.start().await_leading()
    # Another router image: whatever the first writes afterwards would be seen.
    second = operators.start("--router-image=example.test/router:second")
    eventually(lambda: "lease is held by another" in second.log.read_text(), within_s=30)
    for number in range(20):
        cluster.create("InferenceService", service(f"chat-{number}"))
    first.freeze()
    second.await_leading()
    for number in range(20):
        _await_complete(cluster, f"chat-{number}")
    time.sleep(2)
    before = {n: cluster.children(f"chat-{n}", versions=True) for n in range(20)}
    first.thaw()
    assert first.process.wait(timeout=10) != 0
    assert "lease lost" in first.log.read_text()
    assert {n: cluster.children(f"chat-{n}", versions=True) for n in range(20)} == before
    assert second.is_running


@pytest.mark.parametrize("step", ["Starting", "Draining"])
def test_of_a_change_whose_leader_freezes_no_step_is_taken_twice(
    cluster: Cluster, operators: Operators, step: str
) -> None:
    """Frozen as soon as it has written the step; another goes on from there, and the first wakes up after the end."""
    first = operators.start().await_leading()
    cluster.create("InferenceService", service("chat", replicas=2, tensor_parallel_size=1))
    with kubelet(cluster):
        eventually(lambda: cluster.condition("chat", "Ready").get("status") == "True", within_s=60)
        second = operators.start()
        eventually(lambda: "lease is held by another" in second.log.read_text(), within_s=30)
        patch = {"spec": {"scaling": {"tensorParallelSize": 3}}}
        cluster.patch("InferenceService", "chat", patch)
        eventually(lambda: step in _steps(first), within_s=60)
        first.freeze()
        second.await_leading()
        eventually(lambda: _transition(cluster).get("step") == "Done", within_s=60)
        eventually(lambda: len(cluster.engines("chat")) == 1, within_s=60)
        time.sleep(2)
        before = cluster.children("chat", versions=True)
        first.thaw()
        assert first.process.wait(timeout=10) != 0
    assert _transition(cluster)["id"] == 1
    assert [*_steps(first), *_steps(second)] == ["Starting", "Draining", "Done"]
    assert cluster.children("chat", versions=True) == before
    assert second.is_running


def _transition(cluster: Cluster) -> dict[str, Any]:
    status = (cluster.get("InferenceService", "chat") or {}).get("status") or {}
    return status.get("transition") or {}


def _steps(operator: Operator) -> list[str]:
    """That it wrote to the status, in their order."""
    return [one["step"] for one in operator.events() if one.get("event") == "transition step"]


def test_a_leader_that_lost_its_lease_to_another_ends(cluster: Cluster, operators: Operators) -> None:
    first = operators.start().await_leading()
    cluster.patch("Lease", "paceline-operator", {"spec": {"holderIdentity": "somebody-else"}})
    assert first.process.wait(timeout=10) == 3
