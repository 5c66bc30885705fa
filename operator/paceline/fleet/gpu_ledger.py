"""Which GPUs of which node are whose at one moment, so that two services never count on the same free ones. Pure;
the decision loop makes one a tick.

Free is what no pod requests. But a pod that was asked for a moment ago is not there yet, or has no node: where it
would fit, its GPUs are promised to it, and to everybody else they are not free any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from paceline.api import InferenceService
from paceline.fleet.inventory import Amounts, Room, rooms
from paceline.fleet.observed import Node, Observed, Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A service, as far as its GPUs are concerned."""

    name: str
    service: InferenceService
    nodes: tuple[Node, ...]
    placed: Mapping[str, int]
    """GPUs of its pods by node."""

    held: int
    """GPUs of all its pods, those without a node and those that drain among them."""

    unplaced: int
    """Pods of the present size that were asked for, and that the scheduler has not had yet."""

    size: int
    """GPUs of such a pod."""

    yields: bool
    """Whether it gives GPUs back to a service of higher priority."""

    @property
    def priority(self) -> int:
        return self.service.spec.scaling.priority

    @property
    def resource(self) -> str:
        return self.service.spec.accelerator.resource_name


def placed_gpus(pods: Iterable[Pod]) -> Mapping[str, int]:
    """GPUs of those that run on a node, by node."""
    placed: dict[str, int] = {}
    for pod in pods:
        if pod.node is not None and not pod.finished:
            placed[pod.node] = placed.get(pod.node, 0) + pod.gpus
    return placed


def holder_of(observed: Observed, *, name: str, size: int, pods: int, yields: bool) -> Holder:
    """It was told to have so many pods of `size` GPUs."""
    living = [pod for pod in observed.pods if not pod.finished]
    # A pod for which the scheduler found no place keeps none: another may use what it cannot.
    seen = sum(
        1
        for pod in living
        if pod.tensor_parallel_size == size
        and not pod.deleting
        and (pod.node is not None or pod.unschedulable_since_s is not None)
    )
    return Holder(
        name=name,
        service=observed.service,
        nodes=observed.nodes,
        placed=placed_gpus(living),
        held=sum(pod.gpus for pod in living),
        unplaced=max(pods - seen, 0),
        size=size,
        yields=yields,
    )


class GpuLedger:
    def __init__(self, holders: Iterable[Holder], *, requested: Mapping[str, Amounts]) -> None:
        """`requested` is what all pods of the cluster hold, by node."""
        self._requested = dict(requested)
        self._promised: dict[str, dict[str, int]] = {}
        self._without_lower: dict[int, Mapping[str, Amounts]] = {}
        self._holders = sorted(holders, key=lambda one: (-one.priority, one.name))
        """In the order in which they are promised what they wait for."""

        for one in self._holders:
            self.promise(one, size=one.size, pods=one.unplaced)

    def rooms(self, holder: Holder) -> tuple[Room, ...]:
        """What it may use now: what is nobody's, and what was promised to it."""
        return self._seen_by(holder, self._requested)

    def rooms_in_turn(self, holder: Holder) -> tuple[Room, ...]:
        """The same, as if every service of lower priority had given all back."""
        found = self._without_lower.get(holder.priority)
        if found is None:
            found = self._without_lower[holder.priority] = self._without(holder.priority)
        return self._seen_by(holder, found)

    def unclaimed(self, holder: Holder) -> tuple[Room, ...]:
        """What is nobody's, on the nodes that it may use."""
        return rooms(holder.service, nodes=holder.nodes, requested=self._requested)

    def held(self, holder: Holder) -> Mapping[str, int]:
        """GPUs by node, promised ones too."""
        found = dict(holder.placed)
        for node, gpus in self._promised.get(holder.name, {}).items():
            found[node] = found.get(node, 0) + gpus
        return found

    def promise(self, holder: Holder, *, size: int, pods: int) -> None:
        """As far as there is room; each pod where it leaves the smallest rest."""
        if pods <= 0:
            return
        free = {room.node: room.free for room in self.unclaimed(holder)}
        mine = self._promised.setdefault(holder.name, {})
        for _ in range(pods):
            fitting = [(gpus, node) for node, gpus in free.items() if gpus >= size]
            if not fitting:
                break
            _, node = min(fitting)
            free[node] -= size
            mine[node] = mine.get(node, 0) + size
            _add(self._requested, node, holder.resource, size)
        self._without_lower.clear()

    def _seen_by(self, holder: Holder, requested: Mapping[str, Amounts]) -> tuple[Room, ...]:
        if promised := self._promised.get(holder.name):
            requested = dict(requested)
            for node, gpus in promised.items():
                _add(requested, node, holder.resource, -gpus)
        return rooms(holder.service, nodes=holder.nodes, requested=requested)

    def _without(self, priority: int) -> Mapping[str, Amounts]:
        found = dict(self._requested)
        for one in self._holders:
            if one.yields and one.priority < priority:
                for node, gpus in self.held(one).items():
                    _add(found, node, one.resource, -gpus)
        return found


def _add(requested: dict[str, Amounts], node: str, resource: str, gpus: int) -> None:
    amounts = requested.get(node, {})
    requested[node] = {**amounts, resource: amounts.get(resource, 0.0) + gpus}
