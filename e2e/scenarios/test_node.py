"""A node is lost: its streams are lost with it, and after a minute no other.

Three nodes with an emulated engine on each; everything else is real. The node goes as in a power cut, with whatever
else ran there: nobody tells the API server, which waits for the kubelet's word. Needs a cluster of three nodes, which
`make e2e-node` brings up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.cluster.choice import Cluster
from e2e.kubectl import Kubectl
from e2e.scenarios.stage import Stage
from e2e.scenarios.tenant import Manifest, Tenant

pytestmark = pytest.mark.three_nodes

NODE_KNOWN_S = 60.0
"""After a node was lost: no request that is sent later may be lost. Kubernetes gives a kubelet 40 s to report."""

REPLACED_S = 480
"""Pods of a node that is gone are replaced after five minutes, as Kubernetes does by default."""


@pytest.fixture
def nodes(kubectl: Kubectl) -> list[str]:
    """By number, from 1."""
    found = sorted(one["metadata"]["name"] for one in kubectl.list("nodes"))
    assert len(found) == 3, "bring the cluster up with `python -m e2e.cluster up --nodes 3`"
    return found


@pytest.fixture
def lost(cluster: Cluster, nodes: list[str]) -> Iterator[Callable[[Tenant], None]]:
    """The last node with engine and router, and it comes back after the test. This machine reaches the service through
    the first."""
    gone: list[int] = []

    def lose(tenant: Tenant) -> None:
        carried = Counter(one["spec"]["nodeName"] for one in (*tenant.engines(), *tenant.routers()))
        number = max((1, 2), key=lambda at: (carried[nodes[at]], at)) + 1
        cluster.kill_node(number)
        gone.append(number)

    yield lose
    for number in gone:
        cluster.start_node(number)


def test_a_lost_node_takes_its_own_streams_with_it_and_after_a_minute_no_other(
    tenant: Tenant,
    emulated: Callable[..., Manifest],
    lost: Callable[[Tenant], None],
    record_scenario: Callable[..., None],
) -> None:
    stage = Stage(tenant, emulated(replicas=3))
    before = {one["metadata"]["uid"] for one in tenant.engines()}
    assert len({one["spec"]["nodeName"] for one in tenant.engines()}) == 3

    def replaced(tenant: Tenant) -> bool:
        serving = {one["metadata"]["uid"] for one in tenant.serving()}
        return len(serving) == 3 and serving != before

    seen: dict[str, Any] = stage.play(lost, until=replaced, timeout_s=REPLACED_S, known_s=NODE_KNOWN_S)
    record_scenario(**seen)
    assert seen["failed_later"] == 0
    assert seen["failed"] <= 0.5 * 10 * NODE_KNOWN_S
