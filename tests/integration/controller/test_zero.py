"""To zero and back on a real API server, with a real operator process and a real Prometheus. Pods are not run; what
their metrics pages say, to Prometheus and to the operator itself, is made here (`load_page`)."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
from click.testing import CliRunner

from paceline.cli import main
from tests.integration.controller.cluster import Cluster, Raw, eventually
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.load_page import LoadPage, gate_door, load_page
from tests.integration.controller.operators import Operators, bury
from tests.integration.controller.test_auto import ONE, chat, measured, replicas, start, status
from tests.integration.metrics.prometheus_server import PrometheusServer

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]

IDLE_S = 12


@pytest.fixture
def gate_ip() -> str:
    """Of a gate whose port is a fixed one: not another test's."""
    return f"127.{random.randint(10, 250)}.{random.randint(1, 250)}.1"


def sleeper(node: str, **spec: Any) -> Raw:
    bounds = {"replicaBounds": {"min": 0, "max": 3}, "scaleToZero": {"idleSeconds": IDLE_S}}
    made = chat("Auto", node=node, **bounds)
    made["spec"]["router"] = {"replicas": 1, "hold": {"maxRequests": 50}}
    return made


def address(ip: str) -> Any:
    return lambda pod: ip if pod["metadata"]["labels"]["paceline.dev/component"] == "router" else None


def falls_asleep(cluster: Cluster, load: LoadPage) -> None:
    load.rate_per_s = 0.0
    eventually(lambda: replicas(cluster), within_s=120, holds=lambda n: n == 0)
    eventually(lambda: cluster.condition("chat", "Ready").get("reason"), holds=lambda r: r == "ScaledToZero")


def test_it_goes_to_zero_and_a_held_request_wakes_it_whoever_leads_and_without_prometheus(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str, gate_ip: str
) -> None:
    operator = start(operators, prometheus)
    cluster.create("InferenceService", sleeper(node))
    with (
        kubelet(cluster, ip=address(gate_ip)),
        load_page(cluster, prometheus, service="chat") as load,
        gate_door(load, ip=gate_ip),
    ):
        measured(cluster, load, rate_per_s=ONE)
        (before,) = cluster.engines("chat").values()
        falls_asleep(cluster, load)
        assert cluster.condition("chat", "Ready")["status"] == "True"
        assert status(cluster)["summary"]["replicas"] == "0/0"
        assert status(cluster)["shape"]["desired"] == {"tensorParallelSize": 1, "replicas": 0}
        assert {"Idle", "ScaledDown"} <= {one["reason"] for one in cluster.events("chat")}
        time.sleep(5)
        assert replicas(cluster) == 0

        bury(cluster, operator)
        asyncio.run(prometheus.end())
        load.held = 2
        start(operators, prometheus)
        since_s = time.monotonic()
        eventually(lambda: replicas(cluster), within_s=30, holds=lambda n: n == 1)
        print(f"woken {time.monotonic() - since_s:.1f} s after the new operator led")
        (after,) = cluster.engines("chat").values()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        eventually(lambda: status(cluster)["shape"].get("current", {}).get("replicas") == 1, within_s=30)
        assert cluster.condition("chat", "Ready")["reason"] == "AllReplicasReady"
        assert status(cluster)["decisions"][0]["reason"] == "RequestHeld"
        where = ["--kubeconfig", str(cluster.plane.kubeconfig), "-n", cluster.namespace]
        explained = CliRunner().invoke(main, ["explain", "chat", *where])
        assert "0xTP1 -> 1xTP1  RequestHeld" in explained.output
        # Awake and unknown: without figures it is not idle.
        load.held = 0
        time.sleep(IDLE_S * 2)
        assert replicas(cluster) == 1


def test_without_a_way_to_the_gates_it_does_not_go_to_zero_and_says_so(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str, gate_ip: str
) -> None:
    start(operators, prometheus)
    cluster.create("InferenceService", sleeper(node))
    with (
        kubelet(cluster, ip=address(gate_ip)),
        load_page(cluster, prometheus, service="chat") as load,
    ):
        measured(cluster, load, rate_per_s=ONE)
        load.rate_per_s = 0.0
        eventually(
            lambda: cluster.condition("chat", "ScalingActive").get("message", ""),
            within_s=150,
            holds=lambda text: "does not go to zero: 1 of 1 Ready router pods" in text,
        )
        assert replicas(cluster) == 1
        # Nothing else stands in the way.
        with gate_door(load, ip=gate_ip):
            falls_asleep(cluster, load)
