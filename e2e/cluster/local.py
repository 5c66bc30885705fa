"""The local cluster: a control plane of processes on this machine, and one to three real nodes.

Called by the command line. ``up`` is idempotent: a healthy cluster is used as it is, a broken one is taken
down first. Images stay in each node's containerd between runs; etcd begins empty.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from e2e.cluster import addons, binaries, cgroups, network
from e2e.cluster.builder import Builder
from e2e.cluster.certificates import Authority, control_plane_parties, node_party
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.daemons import Daemons
from e2e.cluster.errors import ClusterError
from e2e.cluster.exclusive import exclusive
from e2e.cluster.image_specs import CLUSTER_IMAGES
from e2e.cluster.layout import Layout
from e2e.cluster.local_node import LocalNode
from e2e.cluster.packages import NODE_PACKAGES, ensure_packages
from e2e.cluster.progress import say, step
from e2e.cluster.shell import run, succeeds
from e2e.cluster.topology import Node, Topology

API_TIMEOUT_S = 90
NODES_TIMEOUT_S = 180
HEALTH_TIMEOUT_S = 60

_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass
class LocalCluster:
    layout: Layout

    # ---- the verbs of the command line

    def up(self, size: int | None) -> None:
        """Bring the cluster up with ``size`` nodes (None: as it runs, else one)."""
        if os.geteuid() != 0:
            raise ClusterError("the local node needs root (namespaces, mounts, cgroups): run as root")
        with self._alone():
            running = self.topology()
            wanted = Topology(size or (running.size if running else 1))
            if running == wanted and self._is_healthy(wanted):
                say(f"already up with {wanted.size} node(s)")
                self.ensure_images(CLUSTER_IMAGES)
            else:
                if self.daemons.names():
                    say(f"what runs is not {wanted.size} healthy node(s): beginning anew")
                    self._stop()
                self._create(wanted)
            with step("cluster add-ons"):
                addons.apply(self.kubectl_words(), addons.ALL)

    def down(self) -> None:
        """Stop everything and leave only caches."""
        with self._alone():
            self._stop()

    def _stop(self) -> None:
        with step("taking the cluster down"):
            topology = self.topology() or Topology(3)
            for node in topology.nodes:
                self._node(node).stop()
            for name in reversed(_CONTROL_PLANE):
                self.daemons.stop(name)
            network.remove(Topology(3).nodes)
            cgroups.remove("/paceline")
            shutil.rmtree(self.layout.etcd, ignore_errors=True)
            for path in (self.layout.topology, self.layout.kubeconfig):
                path.unlink(missing_ok=True)

    def status(self) -> list[str]:
        """Lines for a person: what runs, what does not."""
        topology = self.topology()
        if topology is None:
            return ["local cluster: down"]
        lines = [f"local cluster: {topology.size} node(s), kubeconfig {self.layout.kubeconfig}"]
        for name in (*_CONTROL_PLANE, *(node.name for node in topology.nodes)):
            lines.append(f"  {name}: {'runs' if self.daemons.is_running(name) else 'DOES NOT RUN'}")
        if self.is_answering():
            lines += run(*self.kubectl_words(), "get", "nodes", "-o", "wide").splitlines()
            lines += run(*self.kubectl_words(), "get", "pods", "-A").splitlines()
        else:
            lines.append(f"  the API server does not answer; see {self.layout.logs}")
        return lines

    def kill_node(self, number: int) -> None:
        topology = self._known(number)
        with self._alone(), step(f"pulling the plug of paceline-{number}"):
            self._node(Node(number)).stop()
            self._remember(topology.without(number))

    def start_node(self, number: int) -> None:
        topology = self._known(number).with_(number)
        node = self._node(Node(number))
        if node.is_running:
            raise ClusterError(f"paceline-{number} runs already")
        with self._alone(), step(f"starting paceline-{number}"):
            node.start(topology)
            node.start_kubelet()
            self._remember(topology)
            self._wait_ready(topology.living)

    def restart_kubelet(self, number: int) -> None:
        self._known(number)
        self._node(Node(number)).restart_kubelet()

    def kill_pod(self, uid: str) -> None:
        topology = self.topology()
        if not any(cgroups.kill_pod(node.cgroup, uid) for node in (topology.living if topology else ())):
            raise ClusterError(f"no living node runs a pod {uid}")

    def favour_pod(self, uid: str) -> None:
        topology = self.topology()
        if not any(cgroups.favour_pod(node.cgroup, uid) for node in (topology.living if topology else ())):
            raise ClusterError(f"no living node runs a pod {uid}")

    def ensure_images(self, names: Sequence[str]) -> None:
        """Build what is not current and give it to every living node."""
        builder = Builder(self.layout)
        builder.ensure(names)
        topology = self.topology()
        specs = [spec for name, spec in builder.specs.items() if name in names]
        for node in topology.living if topology else ():
            self._node(node).images().ensure(specs, builder.oci_layout)

    def tag(self, name: str, alias: str) -> None:
        """Give the nodes' image ``NAME:dev`` the tag ``alias`` too: what an upgrade goes to."""
        topology = self.topology()
        for node in topology.living if topology else ():
            self._node(node).images().tag(name, alias)

    def load(self, archive: Path) -> None:
        topology = self.topology()
        if topology is None:
            raise ClusterError("the cluster is down: `python -m e2e.cluster up` first")
        for node in topology.living:
            self._node(node).images().load(archive)

    # ---- what they are made of

    @cached_property
    def authority(self) -> Authority:
        return Authority(self.layout.pki)

    @cached_property
    def daemons(self) -> Daemons:
        return Daemons(records=self.layout.daemons, logs=self.layout.logs)

    @property
    def programs(self) -> Path:
        return binaries.kubernetes().folder(self.layout)

    def kubectl_words(self) -> tuple[str, str, str]:
        return (str(self.programs / "kubectl"), "--kubeconfig", str(self.layout.kubeconfig))

    def topology(self) -> Topology | None:
        path = self.layout.topology
        return Topology.from_json(path.read_text()) if path.exists() else None

    def is_answering(self) -> bool:
        return self.layout.kubeconfig.exists() and succeeds(*self.kubectl_words(), "get", "--raw", "/readyz")

    def _create(self, topology: Topology) -> None:
        ensure_packages(NODE_PACKAGES, self.layout)
        programs = binaries.kubernetes().ensure(self.layout)
        builder = Builder(self.layout)
        builder.ensure(CLUSTER_IMAGES)
        self.authority.ensure([*control_plane_parties(), *(node_party(node) for node in topology.nodes)])
        plane = ControlPlane(self.layout, programs, self.authority)
        for party in ("controller-manager", "scheduler"):
            _write_private(plane.kubeconfig(party), self.authority.kubeconfig(party))
        _write_private(self.layout.kubeconfig, self.authority.kubeconfig("admin"))
        shutil.rmtree(self.layout.etcd, ignore_errors=True)
        self._remember(topology)
        with step("control plane and containerd"):
            network.create()
            self.daemons.start("etcd", plane.etcd())
            self.daemons.start("kube-apiserver", plane.api_server())
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: self._node(node).start(topology), topology.nodes))
            network.route_services(topology.entrance)
            self._wait_for_api()
            self.daemons.start("kube-controller-manager", plane.controller_manager())
            self.daemons.start("kube-scheduler", plane.scheduler())
        for node in topology.nodes:
            self._node(node).images().ensure(
                [builder.specs[name] for name in CLUSTER_IMAGES], builder.oci_layout
            )
        with step(f"{topology.size} node(s) Ready"):
            for node in topology.nodes:
                self._node(node).start_kubelet()
            self._wait_ready(topology.nodes)

    def _alone(self) -> AbstractContextManager[None]:
        return exclusive(self.layout.state / "lock", "changing the cluster")

    def _node(self, node: Node) -> LocalNode:
        return LocalNode(node, self.layout, self.programs, self.authority, self.daemons)

    def _remember(self, topology: Topology) -> None:
        self.layout.topology.parent.mkdir(parents=True, exist_ok=True)
        self.layout.topology.write_text(topology.to_json())
        if self.daemons.is_running("kube-apiserver"):
            network.route_services(topology.entrance)

    def _known(self, number: int) -> Topology:
        topology = self.topology()
        if topology is None or number not in {node.number for node in topology.nodes}:
            raise ClusterError(f"there is no node {number}: `python -m e2e.cluster up --nodes 3` makes three")
        return topology

    def _is_healthy(self, topology: Topology) -> bool:
        """Whether everything runs, and answers within a minute: on a busy machine a healthy cluster is slow."""
        names = (*_CONTROL_PLANE, *(node.name for node in topology.nodes))
        end = time.monotonic() + HEALTH_TIMEOUT_S
        while all(self.daemons.is_running(name) for name in names) and time.monotonic() < end:
            if self.is_answering() and self._are_ready(topology.nodes):
                return True
            time.sleep(1)
        return False

    def _are_ready(self, nodes: Sequence[Node]) -> bool:
        path = '{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}'
        seen = run(*self.kubectl_words(), "get", "nodes", "-o", f"jsonpath={path}").split()
        return {f"{node.name}=True" for node in nodes} <= set(seen)

    def _wait_for_api(self) -> None:
        end = time.monotonic() + API_TIMEOUT_S
        while not self.is_answering():
            if time.monotonic() > end or not self.daemons.is_running("kube-apiserver"):
                raise ClusterError(f"the API server is not ready; see {self.layout.logs}/kube-apiserver.log")
            time.sleep(0.2)

    def _wait_ready(self, nodes: Sequence[Node]) -> None:
        end = time.monotonic() + NODES_TIMEOUT_S
        while not self._are_ready(nodes):
            if time.monotonic() > end:
                raise ClusterError(
                    f"nodes not Ready after {NODES_TIMEOUT_S} s; see {self.layout.state}/nodes/*/log"
                )
            time.sleep(0.3)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
