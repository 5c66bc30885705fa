"""An API server that refuses, forgets its answers or is slow makes a change late, and nothing worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.scenarios.api_faults import api_faults
from tests.integration.controller.cluster import Cluster, eventually, service
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.operators import Operators
from tests.integration.controller.repeated import repeated
from tests.integration.controller.test_crash import ended, serving

pytestmark = pytest.mark.apiserver

REPLICAS = 2
LEASE_S = 15
"""As shipped."""

CHANGE_S = 180.0


def transition(cluster: Cluster) -> int:
    status = (cluster.get("InferenceService", "chat") or {})["status"]
    return int(status["transition"]["id"])


def kubeconfig_through(cluster: Cluster, path: Path, *, port: int) -> Path:
    config = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 409}, id="conflicts"),
        pytest.param({"status": 429}, id="too-many-requests"),
        pytest.param({"status": 500}, id="internal-errors-and-lost-answers"),
        pytest.param({"delay_s": 0.7}, id="slow"),
    ],
)
def test_changes_of_the_tensor_parallel_size_end_as_with_a_healthy_one(
    cluster: Cluster, operators: Operators, tmp_path: Path, fault: dict[str, Any]
) -> None:
    least = REPLICAS

    def look() -> None:
        nonlocal least
        least = min(least, serving(cluster))

    cluster.create("InferenceService", service("chat", replicas=REPLICAS, tensor_parallel_size=1))
    with api_faults(cluster.plane.url, trusting=cluster.context) as faults, kubelet(cluster):
        kubeconfig = kubeconfig_through(cluster, tmp_path / "kubeconfig", port=faults.port)
        operator = operators.start(lease_s=LEASE_S, kubeconfig=kubeconfig).await_leading()
        eventually(lambda: ended(cluster, 1), within_s=60)
        for name, value in fault.items():
            setattr(faults, name, value)
        with repeated(look, every_s=0.3):
            for size in (3, 1):
                cluster.patch("InferenceService", "chat", {"spec": {"scaling": {"tensorParallelSize": size}}})
                eventually(lambda size=size: ended(cluster, size), within_s=CHANGE_S)  # type: ignore[misc]
        assert operator.is_leading(), "it kept its Lease"
        faults.heal()
    print(dict(faults.answered))
    assert least == REPLICAS, "a surge never serves with less than what it had"
    assert transition(cluster) == 2
    if "status" in fault:
        assert faults.spoiled >= 5
