"""Stands for the kubelet, the outer edge of these tests: it says that pods are Ready, a moment after they
appear.

Pods have no node, so the API server removes a deleted one at once, as a kubelet would after its drain.
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
            try:
                cluster.patch("Pod", name, {"status": running_status(ip(pod))}, "status", manager="kubelet")
            except HttpError as error:
                if error.status not in (404, 409):
                    raise

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
