"""How many replicas of each tensor-parallel size fit: bounds of the spec, GPUs that exist, budgets and quota.

A replica needs its GPUs on one node, and so do the replicas of one pod together. What this service holds already it may
keep; another size may also take the GPUs that the present one gives back, as far as any node could hold a replica of
that size. Pods that change in place need no more than they have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from paceline.planner.decision import Limit
from paceline.planner.observation import Goal, Observation, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The most replicas of one size, and what the limit is."""

    most: int
    limit: Limit
    unit: int = 1
    """They come and go by so many."""
    in_place: tuple[int, ...] = ()
    """More than `most`, as the present pods could be changed to; ascending."""

    @property
    def is_empty(self) -> bool:
        return not self.most and not self.in_place

    def whole(self, replicas: int) -> int:
        """In whole pods, rounded up."""
        return -(-replicas // self.unit) * self.unit


def room(observation: Observation, tensor_parallel_size: int) -> Room:
    goal = observation.goal
    size, unit = tensor_parallel_size, observation.unit(tensor_parallel_size)
    found = [Room(most=goal.max_replicas, limit="MaxReplicas")]
    if observation.grant is not None:
        # Before the inventory: where both bind, this one says more.
        found.append(Room(most=observation.grant.gpus // size, limit=observation.grant.limit))
    found.append(_inventory(observation, size, unit=unit))
    if goal.max_gpus is not None:
        found.append(Room(most=goal.max_gpus // size, limit="GpuBudget"))
    if observation.quota_gpus is not None:
        found.append(_quota(observation, size, left=observation.quota_gpus))
    refused = _replicas(size, (*observation.refused, *observation.no_room_beside))
    if refused:
        current = observation.current
        standing = current.replicas if current is not None and current.tensor_parallel_size == size else 0
        found.append(Room(most=max(min(refused) - 1, standing, 0), limit="Refused"))
    least = min(found, key=lambda one: one.most // unit)
    most = least.most // unit * unit
    return replace(least, most=most, unit=unit, in_place=_in_place(observation, size, beyond=most))


def least_replicas(goal: Goal) -> int:
    """Never zero: scaling to zero is not the planner's to decide."""
    return max(goal.min_replicas, 1)


def _quota(observation: Observation, size: int, *, left: int) -> Room:
    """What runs stays, also where more is used than the quota allows by now."""
    held = {one.tensor_parallel_size: one.ready + one.starting for one in observation.groups}
    gpus = sum(one * count for one, count in held.items())
    return Room(most=max((gpus + left) // size, held.get(size, 0)), limit="Quota")


def _in_place(observation: Observation, size: int, *, beyond: int) -> tuple[int, ...]:
    """What whole pods come to, where they can be divided so. The GPUs are held already: bounds and budgets alone limit."""
    means, goal, current = observation.in_place, observation.goal, observation.current
    if means is None or observation.changing or current is None or current.tensor_parallel_size == size:
        return ()
    ranks, rest = divmod(means.gpus_per_pod, size)
    if rest:
        return ()
    limits = [goal.max_replicas, *(count - 1 for count in _replicas(size, observation.refused))]
    if goal.max_gpus is not None:
        limits.append(goal.max_gpus // size)
    if observation.grant is not None:
        limits.append(observation.grant.gpus // size)
    least, most = max(least_replicas(goal), beyond + 1), min(limits)
    return tuple(one for pods in range(1, means.pods + 1) if least <= (one := pods * ranks) <= most)


def _replicas(size: int, shapes: Iterable[Shape]) -> list[int]:
    return [one.replicas for one in shapes if one.tensor_parallel_size == size]


def _inventory(observation: Observation, size: int, *, unit: int) -> Room:
    pod = size * unit
    held = given_back = 0
    for one in observation.groups:
        replicas = one.ready + one.starting
        if one.tensor_parallel_size == size:
            held += replicas
        else:
            given_back += one.tensor_parallel_size * replicas
    free = ever = loose = 0
    for node in observation.nodes:
        free += node.count * (node.free // pod * unit)
        ever += node.count * (node.total // pod * unit)
        loose += node.count * node.free
    most = max(min(held + free + given_back // pod * unit, ever), held)
    return Room(most=most, limit="Topology" if loose - free * size >= pod else "Inventory")
