"""One real node: containerd, kubelet and kube-proxy in namespaces of their own, a machine in the machine.

Called by the local cluster. Its first process is ``node-init.sh``; ending that process ends everything in
the node at once, as a power cut does.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cgroups, network, node_config
from e2e.cluster.certificates import Authority
from e2e.cluster.daemons import Daemons
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout
from e2e.cluster.node_images import NodeImages
from e2e.cluster.shell import run, succeeds
from e2e.cluster.topology import CONTROL_PLANE_IP, Node, Topology

_INIT = Path(__file__).parent / "node-init.sh"
CONTAINERD_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class LocalNode:
    node: Node
    layout: Layout
    programs: Path
    authority: Authority
    daemons: Daemons

    @property
    def home(self) -> Path:
        return self.layout.node(self.node.name)

    def start(self, topology: Topology) -> None:
        """Start the node up to containerd; :meth:`start_kubelet` lets it join."""
        self._write_files()
        routes = [f"{other.pod_cidr}@{other.address}" for other in topology.nodes if other != self.node]
        environment = {
            "NODE": self.node.name,
            "ADDRESS": self.node.address,
            "GATEWAY": CONTROL_PLANE_IP,
            "ROUTES": " ".join(routes),
            "HOME_DIR": str(self.home),
            "BINARIES": str(self.programs),
            "LABELS": node_config.node_labels(),
            "CGROUP": self.node.cgroup,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        record = self.daemons.start(
            self.node.name,
            [
                "unshare", "--mount", "--propagation", "private", "--net", "--uts", "--ipc", "--pid",
                "--fork", "--kill-child", "--mount-proc", "bash", self.home / "etc" / _INIT.name,
            ],
            env=environment,
        )  # fmt: skip
        network.plug_in(self.node, record.pid)
        self._wait_for_file("/run/containerd-is-clean")

    def start_kubelet(self) -> None:
        run(*self._inside("touch", "/run/start-kubelet"))

    def restart_kubelet(self) -> None:
        """Kill the kubelet abruptly; the node's first process starts it again within a second or so."""
        first = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        run("nsenter", "--target", first[0], "--mount", "--pid", "--", "sh", "-c", "kill -9 $(pidof kubelet)")

    def stop(self) -> None:
        """Pull the plug: every process, mount and link of the node goes at once."""
        self.daemons.stop(self.node.name, kill=True)
        for group in (self.node.cgroup, f"{self.node.cgroup}-system"):
            cgroups.remove(group)

    def images(self) -> NodeImages:
        return NodeImages(node=self.node.name, enter=self._inside())

    @property
    def is_running(self) -> bool:
        return self.daemons.is_running(self.node.name)

    @property
    def _pid(self) -> int:
        pid = self.daemons.pid(self.node.name)
        if pid is None:
            raise ClusterError(
                f"{self.node.name} does not run: `python -m e2e.cluster start-node {self.node.number}`"
            )
        return pid

    def _inside(self, *command: str) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self._pid), "--mount", "--", *command)

    def _wait_for_file(self, path: str) -> None:
        end = time.monotonic() + CONTAINERD_TIMEOUT_S
        while time.monotonic() < end:
            if succeeds(*self._inside("test", "-e", path)):
                return
            time.sleep(0.1)
        log = self.daemons.logs / f"{self.node.name}.log"
        raise ClusterError(
            f"{self.node.name}: containerd is not up after {CONTAINERD_TIMEOUT_S} s; see {log}"
        )

    def _write_files(self) -> None:
        etc = self.home / "etc"
        for folder in (etc, self.home / "log", self.home / "cni"):
            folder.mkdir(parents=True, exist_ok=True)
        # Pods of a former cluster: their mounts went with the node.
        for name in ("kubelet", "pod-logs", "container-logs"):
            shutil.rmtree(self.home / name, ignore_errors=True)
        for log in (self.home / "log").iterdir():
            log.unlink()
        (self.home / "cni" / "10-paceline.conflist").write_text(node_config.cni(self.node))
        # bash reads a script while it runs it: an edit of the original must not reach a running node.
        shutil.copyfile(_INIT, etc / _INIT.name)
        (etc / "containerd.toml").write_text(node_config.containerd())
        (etc / "resolv.conf").write_text("search .\n")
        _write_secret(etc / "kubelet.kubeconfig", self.authority.kubeconfig(self.node.name))
        _write_secret(etc / "proxy.kubeconfig", self.authority.kubeconfig("proxy"))
        (etc / "kube-proxy.yaml").write_text(
            node_config.kube_proxy(self.node, kubeconfig=str(etc / "proxy.kubeconfig"))
        )
        (etc / "kubelet.yaml").write_text(
            node_config.kubelet(
                self.node,
                ca=str(self.authority.certificate("ca")),
                certificate=str(self.authority.certificate(self.node.name)),
                key=str(self.authority.key(self.node.name)),
                resolv_conf=str(etc / "resolv.conf"),
            )
        )


def _write_secret(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
