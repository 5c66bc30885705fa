"""How many replicas of each tensor-parallel size fit: bounds of the spec, GPUs that exist, budgets and quota.

A replica needs its GPUs on one node. What this service holds already it may keep; another size may also take
the GPUs that the present one gives back, as far as any node could hold a replica of that size.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.planner.decision import Limit
from paceline.planner.observation import Goal, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The most replicas of one size, and what the limit is."""

    most: int
    limit: Limit


def room(observation: Observation, tensor_parallel_size: int) -> Room:
    goal = observation.goal
    size = tensor_parallel_size
    found = [Room(most=goal.max_replicas, limit="MaxReplicas")]
    if observation.grant is not None:
        # Before the inventory: where both bind, this one says more.
        found.append(Room(most=observation.grant.gpus // size, limit=observation.grant.limit))
    found.append(_inventory(observation, size))
    if goal.max_gpus is not None:
        found.append(Room(most=goal.max_gpus // size, limit="GpuBudget"))
    if observation.quota_gpus is not None:
        found.append(_quota(observation, size, left=observation.quota_gpus))
    refused = [one.replicas for one in observation.refused if one.tensor_parallel_size == size]
    if refused:
        current = observation.current
        standing = current.replicas if current is not None and current.tensor_parallel_size == size else 0
        found.append(Room(most=max(min(refused) - 1, standing, 0), limit="Refused"))
    return min(found, key=lambda one: one.most)


def least_replicas(goal: Goal) -> int:
    """Never zero: scaling to zero is not the planner's to decide."""
    return max(goal.min_replicas, 1)


def _quota(observation: Observation, size: int, *, left: int) -> Room:
    """What runs stays, also where more is used than the quota allows by now."""
    held = {one.tensor_parallel_size: one.ready + one.starting for one in observation.groups}
    gpus = sum(one * count for one, count in held.items())
    return Room(most=max((gpus + left) // size, held.get(size, 0)), limit="Quota")


def _inventory(observation: Observation, size: int) -> Room:
    held = given_back = 0
    for one in observation.groups:
        replicas = one.ready + one.starting
        if one.tensor_parallel_size == size:
            held += replicas
        else:
            given_back += one.tensor_parallel_size * replicas
    free = ever = loose = 0
    for node in observation.nodes:
        free += node.count * (node.free // size)
        ever += node.count * (node.total // size)
        loose += node.count * node.free
    most = max(min(held + free + given_back // size, ever), held)
    return Room(most=most, limit="Topology" if loose - free * size >= size else "Inventory")
