"""Two services under one GPU budget, on a real API server, with a real operator process and a real Prometheus: the
one of higher priority grows by what the other gives back, and the pods of both are never more than the budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.integration.controller.cluster import ENGINE, Cluster, Raw, eventually
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.load_page import load_pages
from tests.integration.controller.operators import Operators
from tests.integration.controller.repeated import repeated
from tests.integration.controller.test_auto import MANY, ONE, WITHIN_S, chat, metrics_available, start
from tests.integration.metrics.prometheus_server import PrometheusServer

pytestmark = pytest.mark.apiserver

BUDGET = 4
GOLD, BRONZE = "gold", "bronze"


def service(name: str, *, priority: int, node: str) -> Raw:
    made = chat("Auto", node=node, priority=priority)
    made["metadata"]["name"] = name
    return made


def replicas(cluster: Cluster) -> tuple[int, int]:
    """Asked for, of both."""
    gold, bronze = (
        sum(one["spec"]["replicas"] for one in cluster.engines(name).values()) for name in (GOLD, BRONZE)
    )
    return gold, bronze


def last_decision(cluster: Cluster, name: str) -> Raw:
    status = (cluster.get("InferenceService", name) or {}).get("status") or {}
    return next(iter(status.get("decisions") or ()), {})


@dataclass(slots=True)
class Most:
    pods: int = 0


@contextmanager
def counted(cluster: Cluster) -> Iterator[Most]:
    """The most engine pods that there were at any moment of the block."""
    most = Most()

    def count() -> None:
        pods = cluster.objects("Pod", selector=f"paceline.dev/component={ENGINE}")
        most.pods = max(most.pods, len(pods))

    with repeated(count, every_s=0.1):
        yield most


def test_the_budget_goes_by_priority_and_is_never_exceeded(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str
) -> None:
    start(operators, prometheus, f"--cluster-gpu-budget={BUDGET}")
    for name, priority in ((GOLD, 10), (BRONZE, 0)):
        cluster.create("InferenceService", service(name, priority=priority, node=node))
    with (
        kubelet(cluster),
        load_pages(cluster, prometheus, services=(GOLD, BRONZE)) as loads,
        counted(cluster) as most,
    ):
        for load in loads.values():
            load.rate_per_s = ONE
        eventually(
            lambda: {metrics_available(cluster, name) for name in loads},
            within_s=WITHIN_S,
            holds=lambda known: known == {"True"},
        )
        loads[BRONZE].rate_per_s = MANY
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda both: both == (1, 3))
        loads[GOLD].rate_per_s = MANY
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda both: both == (3, 1))
        cut = eventually(
            lambda: last_decision(cluster, BRONZE),
            within_s=WITHIN_S,
            holds=lambda made: made.get("limit") == "ClusterBudget",
        )
        assert f"budget of {BUDGET} GPUs leaves 1 to this service (priority 0)" in cut["message"]
        loads[GOLD].rate_per_s = ONE
        eventually(lambda: replicas(cluster), within_s=WITHIN_S, holds=lambda both: both == (1, 3))
    assert most.pods == BUDGET
