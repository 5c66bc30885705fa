"""Stands for the kubelet, the outer edge of these tests: it says that pods are Ready, a moment after they
appear.

Pods have no node, so the API server removes a deleted one at once, as a kubelet would after its drain. Tests in which a
node is full decide themselves, by `bind`, `say` and `remove`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.integration.controller.cluster import LABEL, Cluster, HttpError, Raw
from tests.integration.controller.repeated import repeated

PERIOD_S = 0.2


@contextmanager
def kubelet(
    cluster: Cluster,
    *,
    start_s: float = 0.5,
    serves: Callable[[Raw], bool] = lambda _: True,
    ip: Callable[[Raw], str | None] = lambda _: None,
) -> Iterator[None]:
    """Every pod of a service for which `serves` is Ready `start_s` after it was first seen, and has the address
    `ip`."""
    seen_s = dict[str, float]()

    def turn() -> None:
        for pod in cluster.objects("Pod", selector=LABEL):
            uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
            since_s = seen_s.setdefault(uid, time.monotonic())
            ready = any(c["type"] == "Ready" for c in pod["status"].get("conditions") or ())
            if ready or not serves(pod) or time.monotonic() - since_s < start_s:
                continue
            with _unless_it_has_moved_on():
                cluster.patch("Pod", name, {"status": running_status(ip(pod))}, "status", manager="kubelet")

    with repeated(turn, every_s=PERIOD_S):
        yield


def running_status(ip: str | None) -> Raw:
    """Of a pod that is Ready since now."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now}
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    address = {"podIP": ip, "podIPs": [{"ip": ip}]} if ip is not None else {}
    return {"phase": "Running", "conditions": conditions, **address}


def bind(cluster: Cluster, pod: Raw, *, node: str) -> None:
    """As the scheduler does."""
    name = pod["metadata"]["name"]
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    with _unless_it_has_moved_on():
        cluster.call("POST", cluster.path("Pod", name, "binding"), binding)


def say(cluster: Cluster, pod: Raw, *, ready: bool, scheduled: bool = True, ip: str | None = None) -> None:
    """What scheduler and kubelet would say of it, where that is news."""
    before = {one["type"]: one for one in pod["status"].get("conditions") or ()}
    wanted = {"PodScheduled": str(scheduled), "Ready": str(ready)}
    if {kind: one["status"] for kind, one in before.items()} == wanted:
        return
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = []
    for kind, status in wanted.items():
        old = before.get(kind)
        since = old["lastTransitionTime"] if old and old["status"] == status else now
        conditions.append({"type": kind, "status": status, "lastTransitionTime": since})
    if not scheduled:
        conditions[0] |= {"reason": "Unschedulable", "message": "0/1: no GPUs"}
    said: Raw = {"phase": "Running" if scheduled else "Pending", "conditions": conditions}
    if scheduled and ip is not None:
        said |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    with _unless_it_has_moved_on():
        cluster.patch("Pod", pod["metadata"]["name"], {"status": said}, "status", manager="kubelet")


def remove(cluster: Cluster, pod: Raw) -> None:
    """Its last container has ended."""
    with _unless_it_has_moved_on():
        cluster.call("DELETE", cluster.path("Pod", pod["metadata"]["name"]), gracePeriodSeconds="0")


@contextmanager
def _unless_it_has_moved_on() -> Iterator[None]:
    """Somebody was faster: the pod is gone, or another by now."""
    try:
        yield
    except HttpError as error:
        if error.status not in (404, 409):
            raise
