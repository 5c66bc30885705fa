"""Auto on a full node: the load outgrows one engine of eight GPUs, two of four would carry it, and there is no room
beside the only pod. A real operator, a real API server, a real Prometheus, and an emulated engine process that changes
its layout; scheduler, kubelet and the load on the metrics pages are the test's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.controller.cluster import Cluster, Raw, eventually, pods_of
from tests.integration.controller.load_page import load_page
from tests.integration.controller.operators import Operator, Operators, bury
from tests.integration.controller.test_auto import ONE, WITHIN_S, chat, measured, start
from tests.integration.controller.test_budget import counted, last_decision
from tests.integration.controller.test_in_place import ended, full_node, served
from tests.integration.metrics.prometheus_server import PrometheusServer

pytestmark = pytest.mark.apiserver

FOR_TWO = 7.0
"""Requests a second: 8 at a time and 1.3 s each are 6 for one engine."""


def on_eight_gpus(node: str) -> Raw:
    made = chat("Auto", node=node, tensorParallelSize=8, allowedTensorParallelSizes=[4, 8])
    made["spec"] |= {
        "model": {"uri": "hf://org/model@main", "maxModelTokens": 2048},
        "admission": {"maxOutputTokens": 300, "maxRequestSeconds": 240},
        "transition": {"inPlace": "Enabled", "maxHoldSeconds": 180},
        "router": {"replicas": 1, "hold": {"maxRequests": 2000}},
    }
    return made


def engine_pod(cluster: Cluster) -> Raw:
    (pod,) = (p for p in pods_of(cluster, "chat") if p["spec"]["containers"][0]["name"] == "engine")
    return pod


def measured_time_per_output_token_s(operator: Operator) -> float | None:
    """At the size that the service has now."""
    wanted = ('figure="tpot"', 'quantile="0.5"', 'source="measured"')
    found = (
        value
        for name, value in operator.scrape().items()
        if name.startswith("paceline_decision_latency_seconds") and all(label in name for label in wanted)
    )
    return next(found, None)


def test_auto_divides_the_only_pod_where_a_full_node_leaves_no_room_beside_it(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str, tmp_path: Path
) -> None:
    operator = start(operators, prometheus)
    cluster.create("InferenceService", on_eight_gpus(node))
    with (
        full_node(cluster, tmp_path, name=node),
        load_page(cluster, prometheus, service="chat") as load,
        counted(cluster) as most,
    ):
        eventually(lambda: ended(cluster, 8, 1), within_s=WITHIN_S)
        before = engine_pod(cluster)["metadata"]["uid"]
        measured(cluster, load, rate_per_s=ONE)
        load.rate_per_s = FOR_TWO
        eventually(
            lambda: cluster.condition("chat", "Transitioning").get("status") == "True", within_s=WITHIN_S
        )
        decision = last_decision(cluster, "chat")
        assert decision["shape"] == {"tensorParallelSize": 4, "replicas": 2}
        assert "in place, as there is no room beside: requests are held for about" in decision["message"]
        bury(cluster, operator)
        operator = start(operators, prometheus)
        eventually(lambda: ended(cluster, 4, 2), within_s=WITHIN_S)
        assert served() == (4, 2)
        assert engine_pod(cluster)["metadata"]["uid"] == before
        # Figures are those of the new size as soon as the window holds no other, and the shape is good by them.
        eventually(
            lambda: measured_time_per_output_token_s(operator),
            within_s=WITHIN_S,
            holds=lambda seconds: seconds is not None and 0.01 < seconds < 0.03,
        )
        assert ended(cluster, 4, 2)
        assert cluster.condition("chat", "ScalingActive")["status"] == "True"
        assert len(cluster.engines("chat")) == 1
    assert most.pods == 1, "no pod ever waited for GPUs"
