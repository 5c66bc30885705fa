"""How many GPUs of each node a service's pods may use: allocatable, minus what all pods request there.

Asked by the decision loop before it asks the planner, so that no shape is chosen whose pods would stay
Pending. On a CPU a rank stands for a GPU: as many as the node's cores and memory hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from paceline.api import InferenceService, Toleration, quantity_value
from paceline.fleet.engine_resources import engine_resources
from paceline.fleet.feasibility import may_take
from paceline.fleet.observed import Node

Amounts = Mapping[str, float]
"""Resource name -> amount: cores, bytes, devices."""

TRACKED = ("cpu", "memory")
"""Beside these, every extended resource (its name has a domain)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One node, as far as a service is concerned."""

    node: str
    total: int
    free: int


class Rooms(tuple[Room, ...]):
    """Of all nodes, by name. Services of the same terms have the same rooms: what is made of them is made once."""

    @cached_property
    def nodes(self) -> frozenset[str]:
        return frozenset(room.node for room in self)

    @cached_property
    def alike(self) -> Mapping[tuple[int, int], int]:
        """(total, free) -> nodes that have just that"""
        return Counter((room.total, room.free) for room in self)


@dataclass(frozen=True, slots=True)
class NodeNeeds:
    """All that decides which nodes a service's pods may go to, and how many GPUs each has for them."""

    resource_name: str
    products: tuple[str, ...]
    node_selector: tuple[tuple[str, str], ...]
    tolerations: tuple[Toleration, ...]
    of_a_rank: tuple[tuple[str, str], ...]
    """On a CPU, what a rank requests."""

    @classmethod
    def of(cls, service: InferenceService) -> NodeNeeds:
        accelerator = service.spec.accelerator
        of_a_rank = _of_a_rank(service) if accelerator.is_cpu else {}
        return cls(
            resource_name=accelerator.resource_name,
            products=accelerator.products,
            node_selector=tuple(sorted(accelerator.node_selector.items())),
            tolerations=accelerator.tolerations,
            of_a_rank=tuple(sorted(of_a_rank.items())),
        )


def rooms(service: InferenceService, *, nodes: Iterable[Node], requested: Mapping[str, Amounts]) -> Rooms:
    """Nodes that the pods may go to, by name. A node that is leaving or not Ready has nothing free: what
    runs there counts, and no more may come."""
    found = []
    for node in nodes:
        if not may_take(node, service) or not _tolerated(node, service.spec.accelerator.tolerations):
            continue
        total = _units(service, node, used={})
        free = _units(service, node, used=requested.get(node.name, {})) if _takes_more(node) else 0
        if total:
            found.append(Room(node=node.name, total=total, free=min(free, total)))
    return Rooms(found)


def requests_of(pod: Mapping[str, Any]) -> dict[str, float]:
    """What the scheduler holds for a pod: the sum of its containers, or its largest init container."""
    spec = pod.get("spec") or {}
    sums = _sum(spec.get("containers") or ())
    # A sidecar (restartPolicy: Always) stays beside the containers; the others end before they begin.
    inits = list(spec.get("initContainers") or ())
    for name, amount in _sum(one for one in inits if one.get("restartPolicy") == "Always").items():
        sums[name] = sums.get(name, 0.0) + amount
    for one in inits:
        for name, amount in _amounts(one).items():
            sums[name] = max(sums.get(name, 0.0), amount)
    for name, amount in _quantities(spec.get("overhead") or {}).items():
        sums[name] = sums.get(name, 0.0) + amount
    return sums


def _units(service: InferenceService, node: Node, *, used: Amounts) -> int:
    accelerator = service.spec.accelerator
    if not accelerator.is_cpu:
        left = _number(node.allocatable.get(accelerator.resource_name, "0")) - used.get(
            accelerator.resource_name, 0.0
        )
        return max(0, int(left))
    wanted = _quantities(_of_a_rank(service))
    counts = [
        (_number(node.allocatable.get(name, "0")) - used.get(name, 0.0)) / amount
        for name, amount in wanted.items()
        if amount > 0
    ]
    return max(0, int(min(counts))) if counts else 0


def _of_a_rank(service: InferenceService) -> Mapping[str, str]:
    requests: Mapping[str, str] = engine_resources(service, tensor_parallel_size=1)["requests"]
    return requests


def _takes_more(node: Node) -> bool:
    return node.ready and not node.leaving


def _tolerated(node: Node, tolerations: tuple[Toleration, ...]) -> bool:
    """By the scheduler's rule. Taints of a node that is leaving are left to `leaving`."""
    for taint in node.taints:
        if taint.get("effect") not in ("NoSchedule", "NoExecute"):
            continue
        if str(taint.get("key", "")).startswith("node.kubernetes.io/"):
            continue
        if not any(_tolerates(one, taint) for one in tolerations):
            return False
    return True


def _tolerates(toleration: Toleration, taint: Mapping[str, Any]) -> bool:
    if toleration.effect and toleration.effect != taint.get("effect"):
        return False
    if not toleration.key:
        return toleration.operator == "Exists"
    if toleration.key != taint.get("key"):
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == (taint.get("value") or "")


def _sum(containers: Any) -> dict[str, float]:
    sums: dict[str, float] = {}
    for one in containers:
        for name, amount in _amounts(one).items():
            sums[name] = sums.get(name, 0.0) + amount
    return sums


def _amounts(container: Mapping[str, Any]) -> dict[str, float]:
    """Requests; the API server has already filled them in from limits."""
    return _quantities((container.get("resources") or {}).get("requests") or {})


def _quantities(given: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(str(amount)) for name, amount in given.items() if name in TRACKED or "/" in name}


@lru_cache(maxsize=4096)
def _number(text: str) -> float:
    try:
        return float(quantity_value(text))
    except ValueError:
        return 0.0
