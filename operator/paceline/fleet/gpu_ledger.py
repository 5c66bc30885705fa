"""Which GPUs of which node are whose at one moment, so that two services never count on the same free ones. Pure;
the decision loop makes one a tick.

Free is what no pod requests. But a pod that was asked for a moment ago is not there yet, or has no node: where it
would fit, its GPUs are promised to it, and to everybody else they are not free any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from paceline.api import InferenceService
from paceline.fleet.inventory import Amounts, NodeNeeds, Room, Rooms, rooms
from paceline.fleet.observed import Node, Observed, Pod

_Kind = tuple[NodeNeeds, int]
"""What the pods need of a node, and identity of the nodes that were seen: a tick's holders share them."""


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

    @property
    def kind(self) -> _Kind:
        """Holders of one kind see the same rooms, promises apart."""
        return NodeNeeds.of(self.service), id(self.nodes)


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
        self._unclaimed: dict[_Kind, _View] = {}
        self._in_turn: dict[tuple[_Kind, int], _View] = {}
        """By kind and priority."""

        self._holders = sorted(holders, key=lambda one: (-one.priority, one.name))
        """In the order in which they are promised what they wait for."""

        for one in self._holders:
            self.promise(one, size=one.size, pods=one.unplaced)

    def rooms(self, holder: Holder) -> Rooms:
        """What it may use now: what is nobody's, and what was promised to it."""
        return self._with_promised(holder, self._view(holder), self._requested)

    def rooms_in_turn(self, holder: Holder) -> Rooms:
        """The same, as if every service of lower priority had given all back."""
        requested = self._without_lower.get(holder.priority)
        if requested is None:
            requested = self._without_lower[holder.priority] = self._without(holder.priority)
        key = holder.kind, holder.priority
        view = self._in_turn.get(key)
        if view is None:
            view = self._in_turn[key] = _View(holder, requested)
        return self._with_promised(holder, view, requested)

    def unclaimed(self, holder: Holder) -> Rooms:
        """What is nobody's, on the nodes that it may use."""
        return self._view(holder).rooms

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
            for view in self._unclaimed.values():
                view.look_again(node, self._requested)
        self._without_lower.clear()
        self._in_turn.clear()

    def _view(self, holder: Holder) -> _View:
        key = holder.kind
        if (view := self._unclaimed.get(key)) is None:
            view = self._unclaimed[key] = _View(holder, self._requested)
        return view

    def _with_promised(self, holder: Holder, view: _View, requested: Mapping[str, Amounts]) -> Rooms:
        promised = self._promised.get(holder.name)
        if not promised:
            return view.rooms
        mine = {node: requested.get(node, {}) for node in promised}
        for node, gpus in promised.items():
            _add(mine, node, holder.resource, -gpus)
        return view.otherwise(mine)

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


class _View:
    """The rooms of one kind of pods, each looked at again when something was promised there."""

    def __init__(self, holder: Holder, requested: Mapping[str, Amounts]) -> None:
        self._service = holder.service
        self._nodes = {node.name: node for node in holder.nodes}
        self._by_node = {
            room.node: room for room in rooms(holder.service, nodes=holder.nodes, requested=requested)
        }
        self._rooms: Rooms | None = None

    @property
    def rooms(self) -> Rooms:
        if self._rooms is None:
            self._rooms = Rooms(self._by_node.values())
        return self._rooms

    def look_again(self, node: str, requested: Mapping[str, Amounts]) -> None:
        if node in self._by_node:
            self._by_node[node] = self._room(node, requested)
            self._rooms = None

    def otherwise(self, requested: Mapping[str, Amounts]) -> Rooms:
        """With other requests on some nodes."""
        other = {node: self._room(node, requested) for node in requested if node in self._by_node}
        return Rooms((self._by_node | other).values())

    def _room(self, node: str, requested: Mapping[str, Amounts]) -> Room:
        (room,) = rooms(self._service, nodes=(self._nodes[node],), requested=requested)
        return room
