"""Gate and router find pods at a real API server, with no more rights than their pod has."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.control_plane import ControlPlane
from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.pod_api import LABELS
from tests.integration.gate.processes import NAMESPACE, free_port, stack

pytestmark = pytest.mark.apiserver

RIGHTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s-router", "namespace": NAMESPACE}},
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "s-router", "namespace": NAMESPACE},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "s-router", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "s-router"},
        "subjects": [{"kind": "ServiceAccount", "name": "s-router", "namespace": NAMESPACE}],
    },
]


class Cluster:
    """Pods whose kubelet is the test."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def kubectl(self, *args: str, stdin: str = "") -> str:
        argv = [str(self._plane.binaries / "kubectl"), "--kubeconfig", str(self._plane.kubeconfig), *args]
        done = await asyncio.to_thread(
            subprocess.run, argv, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def pod(self, name: str, *, ip: str) -> None:
        metadata = {"name": name, "namespace": NAMESPACE, "labels": LABELS}
        spec = {"nodeName": "none", "containers": [{"name": "engine", "image": "none"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        await self.status(name, ip=ip, ready=True)

    async def status(self, name: str, *, ip: str, ready: bool) -> None:
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        }
        patch = json.dumps({"status": status})
        await self.kubectl("-n", NAMESPACE, "patch", "pod", name, "--subresource=status", "-p", patch)


async def test_pods_are_found_and_followed_with_the_routers_own_rights(
    tmp_path: Path, start_worker: StartWorker, control_plane: ControlPlane
) -> None:
    cluster = Cluster(control_plane)
    await cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(RIGHTS))
    token = (await cluster.kubectl("-n", NAMESPACE, "create", "token", "s-router")).strip()
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(token)
    (account / "ca.crt").write_bytes(control_plane.ca_file.read_bytes())
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))

    port = free_port()
    first, second = f"127.0.0.2:{port}", f"127.0.0.3:{port}"
    for number in (2, 3):
        await start_worker(ip=f"127.0.0.{number}", port=port)
    await cluster.pod("first", ip="127.0.0.2")
    async with stack(
        tmp_path,
        api_server=control_plane.url,
        engine_port=port,
        kubeconfig=tmp_path / "kubeconfig",
        gate_environ={"PACELINE_SERVICE_ACCOUNT": str(account)},
    ) as served:
        await served.wait_ready()
        assert await served.listed() == {first}
        await cluster.pod("second", ip="127.0.0.3")
        await served.wait_listed({first, second})
        # The gate sees it as well: what a stranger takes from the list comes back.
        await served.router_post("remove_worker", worker=second)
        await served.wait_listed({first, second})
        await cluster.status("first", ip="127.0.0.2", ready=False)
        await served.wait_listed({second})
        await cluster.kubectl("-n", NAMESPACE, "delete", "pod", "second", "--force", "--grace-period=0")
        await served.wait_listed(set())
        assert "pod_watch_lost" not in served.gate.output()
