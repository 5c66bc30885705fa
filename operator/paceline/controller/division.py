"""How the GPUs of the cluster are divided between the services in one tick. Pure; the decision loop makes one a tick.

    every service    nodes_in_turn ──> its wish: what it would take if those of lower priority gave all back
    all together     planner.shares: the most that each may hold, by budget, shared nodes and priority
    one by one       cut ──> the wish stands, or is decided anew within the share and what is free now ──> take

The last is in order of priority, and each sees what those before it took: no free GPU is taken twice. A service that
holds more than its share shrinks; the one whose share that is grows when the pods are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.api import Shape as ApiShape
from paceline.controller import planning
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Observed
from paceline.fleet.gpu_ledger import GpuLedger, Holder, holder_of
from paceline.fleet.in_place import pod_layout, told_variants
from paceline.fleet.inventory import Amounts, NodeNeeds, Rooms, rooms
from paceline.fleet.roles import is_active
from paceline.planner import Grant, NodeGpus, Shape, SharedLimit
from paceline.planner.sharing import Claim, Pool, Share, shares
from paceline_core import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a service is asked anew with."""

    nodes: tuple[NodeGpus, ...]
    grant: Grant | None
    """None: the share would be enough, and other pods are still where the wish was to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a service would take."""

    shape: Shape
    in_place: bool = False
    """Another tensor-parallel size within the pods that it has: no pod comes."""


@dataclass(slots=True)
class _Member:
    holder: Holder
    current: Shape
    """What it was told to have, in whole pods."""

    layout: Layout
    """Of such a pod."""

    floor: int
    taken: int
    """GPUs that nobody else may count on: those that it holds, and those that it was told to have."""

    reach: frozenset[str] = frozenset()
    """Nodes that its pods may go to, once it was asked for its wish."""

    wish: Wish | None = None
    """None: it keeps what it has, whatever the others wish."""

    @property
    def name(self) -> str:
        return self.holder.name

    def new_pods(self, wish: Wish) -> tuple[int, int]:
        """Pods that need a place, and the GPUs of each: another size comes up beside the present one."""
        shape = wish.shape
        if shape.tensor_parallel_size == self.current.tensor_parallel_size:
            more = max(shape.replicas - self.current.replicas, 0)
            return -(-more // self.layout.data_parallel_size), self.layout.gpus
        return 0 if wish.in_place else shape.replicas, shape.tensor_parallel_size


class Division:
    def __init__(
        self,
        seen: Mapping[ServiceKey, tuple[Observed, ApiShape | None]],
        *,
        requested: Mapping[str, Amounts],
        budget: int | None,
    ) -> None:
        """`seen` has every service with the shape that it was told to have; None: that of its spec. `requested` is
        what all pods of the cluster hold, by node. Services on a CPU have no GPUs to share."""
        self._seen = seen
        self._requested = requested
        self._budget = budget
        self._members = {
            key: _member(key, observed, standing)
            for key, (observed, standing) in seen.items()
            if not observed.service.spec.accelerator.is_cpu
        }
        self._taken = sum(one.taken for one in self._members.values())
        self._ledger = GpuLedger((one.holder for one in self._members.values()), requested=requested)
        self._on_cpus: dict[tuple[NodeNeeds, int], Rooms] = {}
        """By terms and identity of the nodes that were seen."""

        self._shares: dict[str, Share] | None = None

    def nodes_in_turn(self, key: ServiceKey) -> tuple[NodeGpus, ...]:
        """For the wish: as if every service of lower priority had given back all that it holds."""
        if (member := self._members.get(key)) is not None:
            found = self._ledger.rooms_in_turn(member.holder)
            member.reach = found.nodes
        else:
            found = self._on_a_cpu(self._seen[key][0])
        return planning.node_gpus(found)

    def wish(self, key: ServiceKey, wish: Wish) -> None:
        """Of a service that will follow its decision; before anybody is cut."""
        if (member := self._members.get(key)) is not None:
            member.wish = wish

    def in_turn(self) -> list[ServiceKey]:
        """Services that have wished: by priority, then the one that holds least."""
        wishing = [(key, one) for key, one in self._members.items() if one.wish is not None]
        return [
            key for key, one in sorted(wishing, key=lambda e: (-e[1].holder.priority, e[1].taken, e[1].name))
        ]

    def cut(self, key: ServiceKey) -> Cut | None:
        """None: the wish stands."""
        member = self._members[key]
        assert member.wish is not None
        if not member.current.replicas:
            # Who wakes gets its first replica: somebody waits for it.
            return None
        most, limit = self._most(member)
        if member.wish.shape.gpus <= most and self._fits(member, member.wish):
            return None
        grant = Grant(gpus=most, limit=limit, why=self._why(member, most, limit)) if limit else None
        return Cut(nodes=planning.node_gpus(self._ledger.rooms(member.holder)), grant=grant)

    def take(self, key: ServiceKey, wish: Wish) -> None:
        """What was decided in the end."""
        member = self._members[key]
        pods, gpus = member.new_pods(wish)
        self._ledger.promise(member.holder, size=gpus, pods=pods)
        more = max(wish.shape.gpus - member.taken, 0)
        member.taken += more
        self._taken += more

    def _on_a_cpu(self, observed: Observed) -> Rooms:
        kind = NodeNeeds.of(observed.service), id(observed.nodes)
        if (found := self._on_cpus.get(kind)) is None:
            found = rooms(observed.service, nodes=observed.nodes, requested=self._requested)
            self._on_cpus[kind] = found
        return found

    def _most(self, member: _Member) -> tuple[int, SharedLimit | None]:
        """GPUs that a wish may have now, and what keeps it from more."""
        assert member.wish is not None
        if self._shares is None:
            self._shares = shares(self._claims(), self._pools())
        share = self._shares[member.name]
        if self._budget is not None:
            now = member.taken + max(self._budget - self._taken, 0)
            if now < share.gpus:
                return now, "ClusterBudget"
        return share.gpus, share.bound_by

    def _fits(self, member: _Member, wish: Wish) -> bool:
        pods, gpus = member.new_pods(wish)
        return not pods or sum(room.free // gpus for room in self._ledger.unclaimed(member.holder)) >= pods

    def _why(self, member: _Member, gpus: int, limit: SharedLimit) -> str:
        priority = f"priority {member.holder.priority}"
        if limit == "ClusterBudget":
            return f"the cluster's budget of {self._budget} GPUs leaves {gpus} to this service ({priority})"
        return f"other services hold GPUs of its nodes or come before it ({priority}): {gpus} are left to it"

    def _claims(self) -> list[Claim]:
        return [
            Claim(
                name=one.name,
                priority=one.holder.priority,
                floor=one.floor,
                current=one.current,
                wish=one.wish.shape,
            )
            for one in self._members.values()
            if one.wish is not None
        ]

    def _pools(self) -> list[Pool]:
        """The budget, and each set of nodes that some service may use: those that may use no others share it."""
        wishing = [one for one in self._members.values() if one.wish is not None]
        found = []
        if self._budget is not None:
            others = sum(one.taken for one in self._members.values() if one.wish is None)
            everyone = frozenset(one.name for one in wishing)
            found.append(Pool(limit="ClusterBudget", gpus=self._budget - others, members=everyone))
        # One service of each kind speaks for all: what is free on a node is so to all that may use it.
        kinds = {(one.holder.resource, one.reach): one for one in wishing}
        for (resource, nodes), any_one in kinds.items():
            gpus = sum(room.free for room in self._ledger.unclaimed(any_one.holder))
            members = []
            for one in wishing:
                if one.holder.resource != resource:
                    continue
                held = sum(n for node, n in self._ledger.held(one.holder).items() if node in nodes)
                if one.reach <= nodes:
                    members.append(one.name)
                    # A pod that waits for a node is left to its deadline: what was asked for counts.
                    held = max(held, one.current.gpus)
                gpus += held
            found.append(Pool(limit="Priority", gpus=gpus, members=frozenset(members)))
        return found


def _member(key: ServiceKey, observed: Observed, standing: ApiShape | None) -> _Member:
    scaling = observed.service.spec.scaling
    told = standing or ApiShape(tensor_parallel_size=scaling.tensor_parallel_size, replicas=scaling.replicas)
    layout = pod_layout(told_variants(observed), tensor_parallel_size=told.tensor_parallel_size)
    current = planning.in_whole_pods(told, layout)
    holder = holder_of(
        observed,
        name=f"{key.namespace}/{key.name}",
        size=layout.gpus,
        pods=current.replicas // layout.data_parallel_size,
        yields=planning.decides(observed) and scaling.mode == "Auto",
    )
    transition = observed.status.transition if observed.status is not None else None
    least = ApiShape(tensor_parallel_size=told.tensor_parallel_size, replicas=max(scaling.least_replicas, 1))
    return _Member(
        holder=holder,
        current=current,
        layout=layout,
        # A change of size is carried to its end.
        floor=current.gpus if is_active(transition) else planning.in_whole_pods(least, layout).gpus,
        taken=max(holder.held, current.gpus),
    )
