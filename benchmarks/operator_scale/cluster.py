"""What lives in the cluster: nodes that are only written down, services in Auto, and pods that are played.

The pods come from the real controller manager. Scheduler and kubelets are played here: a new pod is bound to a node
with room and is Ready at once, a deleted one is gone at once.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable

from benchmarks.auto_service import REPLICAS, SPEC
from benchmarks.operator_scale.api import Api, Raw, Refused
from tests.integration.controller.cluster import ENGINE, LABEL, ROUTER
from tests.integration.controller.kubelet import running_status

NAMESPACES = 20
GPUS = 8
GPU = "nvidia.com/gpu"
PODS_OF_A_SERVICE = REPLICAS + 1
"""With its router pod."""

WIDTH = 8
"""Requests at a time."""

TELL_S = 0.5


def service(number: int) -> Raw:
    return {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": f"service-{number}", "namespace": f"team-{number % NAMESPACES}"},
        "spec": {
            **SPEC,
            "scaling": {**SPEC["scaling"], "scaleDown": {"stabilizationSeconds": 60}},
            "router": {"replicas": 1},
        },
    }


def node(number: int) -> Raw:
    amounts = {GPU: str(GPUS), "cpu": "128", "memory": "1Ti", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "labels": {"nvidia.com/gpu.product": "NVIDIA-H200"}},
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": [ready]},
    }


async def create_nodes(api: Api, count: int) -> None:
    await _each(range(count), lambda number: api.call("POST", "/api/v1/nodes", node(number)))


async def create_services(api: Api, count: int) -> None:
    for number in range(min(NAMESPACES, count)):
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": f"team-{number}"}})

    async def create(number: int) -> None:
        made = service(number)
        where = f"/apis/paceline.dev/v1alpha1/namespaces/{made['metadata']['namespace']}/inferenceservices"
        await api.call("POST", where, made)

    await _each(range(count), create)


async def _each(numbers: Iterable[int], what: Callable[[int], Awaitable[object]]) -> None:
    places = asyncio.Semaphore(WIDTH)

    async def one(number: int) -> None:
        async with places:
            await what(number)

    await asyncio.gather(*(one(number) for number in numbers))


class Pods:
    """Plays scheduler and kubelets, and tells the exporter which pods are Ready."""

    def __init__(self, api: Api, exporter: Api, *, nodes: int) -> None:
        self._api = api
        self._exporter = exporter
        self._nodes = itertools.cycle(range(nodes))
        self._used = Counter[int]()
        self._gpus_on: dict[str, tuple[int, int]] = {}
        """uid -> (node, GPUs)"""

        self._work: asyncio.Queue[Raw] = asyncio.Queue()
        self._ready: dict[str, dict[str, set[str]]] = defaultdict(lambda: {ENGINE: set(), ROUTER: set()})
        self._untold: set[str] = set()

    @property
    def ready(self) -> int:
        return sum(len(names) for one in self._ready.values() for names in one.values())

    async def run(self) -> None:
        await asyncio.gather(
            self._api.follow("/api/v1/pods", self.hear, labelSelector=LABEL),
            self._tell(),
            *(self._play() for _ in range(WIDTH)),
        )

    def hear(self, kind: str, pod: Raw) -> None:
        meta = pod["metadata"]
        ready = kind != "DELETED" and not meta.get("deletionTimestamp") and _is_ready(pod)
        service = f"{meta['namespace']}/{meta['labels'][LABEL]}"
        names = self._ready[service][meta["labels"]["paceline.dev/component"]]
        if ready != (meta["name"] in names):
            (names.add if ready else names.discard)(meta["name"])
            self._untold.add(service)
        if kind == "DELETED":
            place, gpus = self._gpus_on.pop(meta["uid"], (0, 0))
            self._used[place] -= gpus
        elif not ready:
            self._work.put_nowait(pod)

    async def _play(self) -> None:
        while True:
            pod = await self._work.get()
            try:
                await self._next_step(pod)
            except Refused as refused:
                # Another worker was faster, or the pod is gone.
                if refused.status not in (404, 409):
                    raise

    async def _next_step(self, pod: Raw) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if meta.get("deletionTimestamp"):
            await self._api.call("DELETE", path, {"gracePeriodSeconds": 0})
        elif pod["spec"].get("nodeName"):
            await self._api.patch(f"{path}/status", {"status": running_status(None)})
        elif meta["uid"] not in self._gpus_on:
            place = self._place(meta["uid"], _gpus(pod))
            target = {"apiVersion": "v1", "kind": "Node", "name": f"node-{place}"}
            await self._api.call(
                "POST", f"{path}/binding", {"metadata": {"name": meta["name"]}, "target": target}
            )

    def _place(self, uid: str, gpus: int) -> int:
        place = next(place for place in self._nodes if self._used[place] + gpus <= GPUS)
        self._used[place] += gpus
        self._gpus_on[uid] = (place, gpus)
        return place

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            told, self._untold = self._untold, set()
            if told:
                body = {
                    one: {kind: sorted(names) for kind, names in self._ready[one].items()} for one in told
                }
                await self._exporter.call("POST", "/pods", body)


def _is_ready(pod: Raw) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())
    )


def _gpus(pod: Raw) -> int:
    limits = (one.get("resources", {}).get("limits", {}) for one in pod["spec"]["containers"])
    return sum(int(one.get(GPU, 0)) for one in limits)
