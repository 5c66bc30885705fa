"""The same cluster on kind, where a Docker engine and a kind node image are at hand.

Chosen by :func:`e2e.cluster.choice.open_cluster`. kind brings DNS, the pod network and kube-proxy; the rest
(images, Prometheus, fake GPUs and their labels) is what the local nodes get too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster import addons, binaries
from e2e.cluster.builder import Builder
from e2e.cluster.errors import ClusterError
from e2e.cluster.image_specs import CLUSTER_IMAGES
from e2e.cluster.layout import CLUSTER_NAME, Layout
from e2e.cluster.node_config import GPU_LABELS
from e2e.cluster.node_images import NodeImages
from e2e.cluster.progress import say, step
from e2e.cluster.shell import run, succeeds
from e2e.cluster.topology import POD_CIDR, SERVICE_CIDR

NODE_IMAGE = "kindest/node"
CREATE_TIMEOUT_S = 600
_BROUGHT_BY_KIND = frozenset({"pause", "coredns"})


def is_possible() -> bool:
    """Whether a Docker engine answers, kind is installed, and a node image needs no download."""
    return (
        succeeds("docker", "info")
        and succeeds("kind", "version")
        and bool(run("docker", "images", "--quiet", NODE_IMAGE).strip())
    )


@dataclass(frozen=True, slots=True)
class KindCluster:
    layout: Layout

    def up(self, size: int | None) -> None:
        nodes = self._nodes()
        if nodes and size in (None, len(nodes)):
            say(f"already up with {len(nodes)} node(s), on kind")
        else:
            if nodes:
                self.down()
            self._create(size or 1)
        self.ensure_images([name for name in CLUSTER_IMAGES if name not in _BROUGHT_BY_KIND])
        for node in self._nodes():
            labels = [f"{key}={value}" for key, value in GPU_LABELS.items()]
            run(*self.kubectl_words(), "label", "--overwrite", "node", node, *labels)
        with step("cluster add-ons"):
            addons.apply(self.kubectl_words(), (addons.FAKE_GPUS, addons.PROMETHEUS))

    def down(self) -> None:
        with step("deleting the kind cluster"):
            run("kind", "delete", "cluster", "--name", CLUSTER_NAME, timeout_s=120)
            self.layout.kubeconfig.unlink(missing_ok=True)

    def status(self) -> list[str]:
        nodes = self._nodes()
        if not nodes:
            return ["kind cluster: down"]
        pods = run(*self.kubectl_words(), "get", "nodes,pods", "-A", "-o", "wide").splitlines()
        return [f"kind cluster: {len(nodes)} node(s), kubeconfig {self.layout.kubeconfig}", *pods]

    def kill_node(self, number: int) -> None:
        run("docker", "kill", self._node(number))

    def start_node(self, number: int) -> None:
        run("docker", "start", self._node(number))

    def restart_kubelet(self, number: int) -> None:
        run("docker", "exec", self._node(number), "systemctl", "kill", "--signal=KILL", "kubelet")

    def kill_pod(self, uid: str) -> None:
        # The kubelet's systemd driver writes the UID with underscores.
        groups = f"find /sys/fs/cgroup -path '*pod{uid.replace('-', '_')}*' -name cgroup.procs"
        for node in self._nodes():
            run("docker", "exec", node, "sh", "-c", f"{groups} -exec cat {{}} + | xargs -r kill -9")

    def favour_pod(self, uid: str) -> None:
        climb = 'while [ "$g" != /sys/fs/cgroup ]; do echo 10000 > "$g/cpu.weight"; g=$(dirname "$g"); done'
        groups = f"find /sys/fs/cgroup -type d -name '*pod{uid.replace('-', '_')}*'"
        script = f"{groups} | while read -r g; do echo $g; {climb}; done"
        if not any(run("docker", "exec", node, "sh", "-c", script).strip() for node in self._nodes()):
            raise ClusterError(f"no node runs a pod {uid}")

    def ensure_images(self, names: Sequence[str]) -> None:
        builder = Builder(self.layout)
        builder.ensure(names)
        specs = [spec for name, spec in builder.specs.items() if name in names]
        for node in self._nodes():
            self._images(node).ensure(specs, builder.oci_layout)

    def tag(self, name: str, alias: str) -> None:
        for node in self._nodes():
            self._images(node).tag(name, alias)

    def load(self, archive: Path) -> None:
        for node in self._nodes():
            self._images(node).load(archive)

    def kubectl_words(self) -> tuple[str, str, str]:
        program = binaries.kubernetes().folder(self.layout) / "kubectl"
        return (str(program), "--kubeconfig", str(self.layout.kubeconfig))

    def _create(self, size: int) -> None:
        binaries.kubernetes().ensure(self.layout)
        config: dict[str, Any] = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"podSubnet": POD_CIDR, "serviceSubnet": SERVICE_CIDR},
            # One of three runs the control plane too: pods are scheduled on it, for the tests want three.
            "nodes": [{"role": "control-plane"}, *({"role": "worker"} for _ in range(size - 1))],
        }
        self.layout.state.mkdir(parents=True, exist_ok=True)
        with step(f"creating a kind cluster of {size} node(s)"):
            create = ("kind", "create", "cluster", "--name", CLUSTER_NAME, "--wait", "120s", "--config", "-")
            run(
                *create,
                "--kubeconfig",
                self.layout.kubeconfig,
                stdin=yaml.safe_dump(config),
                timeout_s=CREATE_TIMEOUT_S,
            )
            taint = "node-role.kubernetes.io/control-plane:NoSchedule-"
            if size > 1:
                run(*self.kubectl_words(), "taint", "nodes", f"{CLUSTER_NAME}-control-plane", taint)
        # Tests and the demo call Services from this machine.
        address = json.loads(run("docker", "inspect", f"{CLUSTER_NAME}-control-plane"))[0]["NetworkSettings"]
        run("ip", "route", "replace", SERVICE_CIDR, "via", address["Networks"]["kind"]["IPAddress"])

    def _nodes(self) -> list[str]:
        names = run("kind", "get", "nodes", "--name", CLUSTER_NAME).split()
        return sorted(name for name in names if name.startswith(CLUSTER_NAME))

    def _node(self, number: int) -> str:
        nodes = self._nodes()
        if not 1 <= number <= len(nodes):
            raise ClusterError(f"there is no node {number}; kind's nodes are {', '.join(nodes) or 'down'}")
        return nodes[number - 1]

    @staticmethod
    def _images(node: str) -> NodeImages:
        return NodeImages(node=node, enter=("docker", "exec", "--interactive", node))
