"""One service's fleet over the time of a scenario: what is asked for, what serves, which GPUs are held, how punctual its
emulated engines are.

Called by the replay. Every look costs the machine something that the engines need too: few are taken, and an engine's
metrics are read more rarely still, for they count from its start on. Each engine goes before everything else on the
machine: the GPU that it stands for would not wait for a core.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from e2e.cluster.errors import ClusterError
from e2e.kubectl import KubectlError
from e2e.load.step_lag import StepLag
from e2e.replay.played import Look
from e2e.scenarios import streams
from e2e.scenarios.tenant import Manifest, Tenant, is_leaving, is_ready

PAGES_EVERY_S: Final = 30.0
_SIZE: Final = "paceline.dev/tensor-parallel-size"


class FleetWatch:
    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._pages_at_s = 0.0
        self._favoured: set[str] = set()
        self.looks: list[Look] = []
        self.missed = 0
        """Looks that the API server did not answer: what was seen last holds on."""
        self.lag = StepLag()
        self.starts_s: dict[str, float] = {}
        """From a pod's creation to Ready, by its uid."""
        self.size_reasons: dict[str, str] = {}
        """Of decisions for another tensor-parallel size, by their time."""

    def look(self, at_s: float) -> None:
        try:
            status, pods = self._tenant.observe()["status"], self._tenant.engines()
        except KubectlError:
            self.missed += 1
            return
        self.looks.append(look_of(at_s, status=status, pods=pods))
        self.favour(pods)
        for pod in filter(is_ready, pods):
            self.starts_s.setdefault(pod["metadata"]["uid"], _start_s(pod))
        for decision in status.get("decisions", []):
            before, after = decision.get("before") or decision["shape"], decision["shape"]
            if before["tensorParallelSize"] != after["tensorParallelSize"]:
                self.size_reasons[decision["at"]] = decision["reason"]
        due = at_s >= self._pages_at_s + PAGES_EVERY_S
        if due:
            self._pages_at_s = at_s
        self.hear([pod for pod in pods if due or is_leaving(pod)])

    def favour(self, pods: list[Manifest]) -> None:
        for uid in {str(pod["metadata"]["uid"]) for pod in pods} - self._favoured:
            # One that was only just made has no processes yet: at the next look.
            with suppress(ClusterError):
                self._tenant.cluster.favour_pod(uid)
                self._favoured.add(uid)

    def hear(self, pods: list[Manifest]) -> None:
        for pod in pods:
            page = streams.page(pod)
            if page is not None:
                self.lag.hear(pod["metadata"]["uid"], page)


def look_of(at_s: float, *, status: dict[str, Any], pods: list[Manifest]) -> Look:
    """GPUs are held from when a pod has a node until it is gone."""
    desired = status["shape"]["desired"]
    serving = (pod for pod in pods if is_ready(pod) and not is_leaving(pod))
    return Look(
        at_s=at_s,
        tensor_parallel_size=desired["tensorParallelSize"],
        replicas=desired["replicas"],
        gpus=sum(_size(pod) for pod in pods if pod["spec"].get("nodeName")),
        ready=dict(Counter(_size(pod) for pod in serving)),
    )


def _size(pod: Manifest) -> int:
    return int(pod["metadata"]["labels"][_SIZE])


def _start_s(pod: Manifest) -> float:
    ready = next(one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    created_at = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return (datetime.fromisoformat(ready["lastTransitionTime"]) - created_at).total_seconds()
