"""One controller manager beside the shared API server, our CRD in it, and for each test a namespace of its
own."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from paceline.api.crd import custom_resource_definition
from tests.integration.control_plane import ControlPlane
from tests.integration.controller.cluster import Cluster
from tests.integration.controller.operators import Operators, operators
from tests.integration.controller.programs import beside
from tests.integration.controller.repeated import repeated
from tests.integration.metrics.prometheus_server import PrometheusServer


@pytest.fixture(scope="session")
def controlled(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    kubectl: list[Path | str] = [control_plane.binaries / "kubectl", "--kubeconfig", control_plane.kubeconfig]
    crd = yaml.safe_dump(custom_resource_definition()).encode()
    for arguments, text in (
        (["apply", "--server-side", "--force-conflicts", "-f", "-"], crd),
        (["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], None),
    ):
        subprocess.run([*kubectl, *arguments], input=text, check=True, capture_output=True)
    with beside(control_plane, "kube-controller-manager", folder=tmp_path_factory.mktemp("controllers")):
        yield control_plane


@pytest.fixture
def cluster(controlled: ControlPlane) -> Iterator[Cluster]:
    name = f"controller-{uuid.uuid4().hex[:8]}"
    made = Cluster.connect(controlled, namespace=name)
    made.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield made
    made.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(name="operators")
def _operators(cluster: Cluster, tmp_path: Path) -> Iterator[Operators]:
    with operators(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[PrometheusServer]:
    server = PrometheusServer(tmp_path / "prometheus", scrape_s=2)
    server.start()
    yield server
    asyncio.run(server.end())


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """Eight GPUs of the test's own."""
    name = cluster.namespace
    amounts = {"nvidia.com/gpu": "8", "cpu": "64", "memory": "256Gi", "pods": "100"}
    cluster.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"test": name}}})

    def beat() -> None:
        """The node controller doubts a node that was silent for 40 s."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        cluster.call(
            "PATCH",
            f"/api/v1/nodes/{name}/status",
            {"status": {"allocatable": amounts, "capacity": amounts, "conditions": [ready]}},
            content_type="application/merge-patch+json",
        )

    beat()
    with repeated(beat, every_s=5.0):
        yield name
    cluster.call("DELETE", f"/api/v1/nodes/{name}")
