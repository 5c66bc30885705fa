"""The machine's side of the cluster's network: one bridge, a cable per node, routes. No firewall rule.

Called by the local cluster. Everything else (pod bridges, kube-proxy's rules) lies in the nodes' own
network namespaces and goes with them. It must leave nothing on the machine after :func:`remove`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.shell import run, succeeds
from e2e.cluster.topology import BRIDGE, CONTROL_PLANE_IP, SERVICE_CIDR, Node

_INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


def create() -> None:
    """The bridge with the control plane's address; enough inotify instances for kubelets and their pods."""
    if not _exists(BRIDGE):
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "replace", f"{CONTROL_PLANE_IP}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    if int(_INOTIFY_INSTANCES.read_text()) < 1024:
        _INOTIFY_INSTANCES.write_text("1024")


def plug_in(node: Node, pid: int) -> None:
    """Lay the node's cable from the bridge into the network namespace of ``pid``, as ``eth0``."""
    _wait_for_own_namespace(pid)
    if _exists(node.link):
        run("ip", "link", "delete", node.link)
    run("ip", "link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    run("ip", "link", "set", node.link, "master", BRIDGE, "up")
    run("ip", "route", "replace", node.pod_cidr, "via", node.address)


def route_services(entrance: Node | None) -> None:
    """Send the machine's own traffic for Services to ``entrance``, whose kube-proxy knows the pods."""
    if entrance is not None:
        run("ip", "route", "replace", SERVICE_CIDR, "via", entrance.address)


def remove(nodes: Iterable[Node]) -> None:
    for link in (*(node.link for node in nodes), BRIDGE):
        if _exists(link):
            run("ip", "link", "delete", link)


def _exists(link: str) -> bool:
    return succeeds("ip", "link", "show", link)


def _wait_for_own_namespace(pid: int, *, timeout_s: float = 10) -> None:
    """A cable laid before ``unshare`` has done its work would end in the machine's own namespace."""
    ours = os.readlink("/proc/self/ns/net")
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if os.readlink(f"/proc/{pid}/ns/net") != ours:
                return
        except OSError as error:
            raise ClusterError(f"process {pid} of a node ended at once; see the node's log") from error
        time.sleep(0.02)
    raise ClusterError(f"process {pid} has no network namespace of its own after {timeout_s:g} s")
