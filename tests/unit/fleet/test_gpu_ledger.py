"""Whose GPUs are whose: what was promised is free to nobody else, and what the lower hold is free to the higher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.fleet import Node, gpu_ledger
from paceline.fleet.gpu_ledger import GpuLedger, Holder, holder_of
from paceline.fleet.inventory import Room, Rooms, rooms
from tests.unit.fleet.services import EMULATED, merged, service
from tests.unit.fleet.simulated_cluster import Cluster

GPU = "nvidia.com/gpu"


def node(name: str, *, gpus: int = 8) -> Node:
    return Node.parse(
        {
            "metadata": {"name": name, "labels": {"pool": name}},
            "status": {
                "allocatable": {GPU: str(gpus)},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )


NODES = (node("a"), node("b"))


def holder(name: str, *, priority: int = 0, pool: str | None = None, **changes: Any) -> Holder:
    spec: dict[str, Any] = {"scaling": {"priority": priority}}
    if pool is not None:
        spec["accelerator"] = {"nodeSelector": {"pool": pool}}
    fields: dict[str, Any] = {"placed": {}, "held": 0, "unplaced": 0, "size": 1, "yields": True}
    made = service(merged(EMULATED, spec), name=name)
    return Holder(name=name, service=made, nodes=NODES, **(fields | changes))


def free(found: tuple[Room, ...]) -> dict[str, int]:
    return {room.node: room.free for room in found}


def test_a_replica_on_its_way_holds_its_gpus_against_all_but_its_own_service() -> None:
    mine, other = holder("mine", unplaced=1, size=4), holder("other")
    ledger = GpuLedger([mine, other], requested={"a": {GPU: 2.0}})
    # Where it leaves the smallest rest.
    assert free(ledger.rooms(other)) == {"a": 2, "b": 8}
    assert free(ledger.rooms(mine)) == {"a": 6, "b": 8}
    assert ledger.held(mine) == {"a": 4}


def test_what_does_not_fit_is_promised_as_far_as_it_does() -> None:
    mine = holder("mine", unplaced=5, size=4)
    ledger = GpuLedger([mine], requested={"a": {GPU: 1.0}})
    assert free(ledger.unclaimed(mine)) == {"a": 3, "b": 0}


def test_promises_lie_where_the_pods_may_go() -> None:
    mine, other = holder("mine", pool="b", unplaced=9), holder("other")
    ledger = GpuLedger([mine, other], requested={})
    assert free(ledger.rooms(other)) == {"a": 8, "b": 0}


def test_the_higher_come_first_also_for_what_they_wait_for() -> None:
    low, high = holder("a-low", pool="a", unplaced=8), holder("z-high", priority=1, pool="a", unplaced=5)
    ledger = GpuLedger([low, high], requested={})
    assert (ledger.held(high), ledger.held(low)) == ({"a": 5}, {"a": 3})


def test_in_its_turn_a_service_counts_on_what_lower_ones_hold() -> None:
    high = holder("high", priority=5)
    low = holder("low", placed={"a": 3}, unplaced=1)
    equal = holder("equal", priority=5, placed={"b": 2})
    fixed = holder("fixed", placed={"b": 1}, yields=False)
    ledger = GpuLedger([high, low, equal, fixed], requested={"a": {GPU: 7.0}, "b": {GPU: 3.0}})
    assert free(ledger.rooms(high)) == {"a": 0, "b": 5}
    assert free(ledger.rooms_in_turn(high)) == {"a": 4, "b": 5}
    assert free(ledger.rooms_in_turn(low)) == {"a": 1, "b": 5}


def test_a_promise_made_later_counts_in_its_turn_too() -> None:
    one, other = holder("one"), holder("other")
    ledger = GpuLedger([one, other], requested={})
    assert sum(free(ledger.rooms_in_turn(other)).values()) == 16
    ledger.promise(one, size=8, pods=1)
    assert sum(free(ledger.rooms_in_turn(other)).values()) == 8


@given(
    held=st.dictionaries(st.sampled_from("ab"), st.integers(0, 10)),
    promises=st.lists(st.tuples(st.sampled_from(("any", "pool", "low")), st.integers(1, 4)), max_size=6),
)
def test_after_any_promises_the_rooms_are_those_of_what_is_requested_then(
    held: dict[str, int], promises: list[tuple[str, int]]
) -> None:
    holders = {
        "any": holder("any", priority=1),
        "pool": holder("pool", priority=1, pool="a"),
        "low": holder("low", placed={"b": 1}),
    }
    requested = {node: {GPU: float(gpus)} for node, gpus in held.items()}
    ledger = GpuLedger(holders.values(), requested=requested)
    for name, size in promises:
        for one in holders.values():
            ledger.rooms_in_turn(one)
        ledger.promise(holders[name], size=size, pods=1)
    promised = {name: Counter(ledger.held(one)) - Counter(one.placed) for name, one in holders.items()}

    def less(*given_back: Mapping[str, int]) -> dict[str, dict[str, float]]:
        return {
            node.name: {
                GPU: requested.get(node.name, {}).get(GPU, 0.0)
                + sum(found[node.name] for found in promised.values())
                - sum(found.get(node.name, 0) for found in given_back)
            }
            for node in NODES
        }

    for name, one in holders.items():
        lower = ledger.held(holders["low"]) if one.priority else {}
        for found, seen in (
            (ledger.unclaimed(one), less()),
            (ledger.rooms(one), less(promised[name])),
            (ledger.rooms_in_turn(one), less(promised[name], lower)),
        ):
            assert found == rooms(one.service, nodes=NODES, requested=seen)


def test_services_that_want_the_same_of_a_node_look_at_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Node] = []

    def counted(*args: Any, nodes: Iterable[Node], **rest: Any) -> Rooms:
        looked.extend(nodes)
        return rooms(*args, nodes=nodes, **rest)

    monkeypatch.setattr(gpu_ledger, "rooms", counted)
    holders = [holder(f"chat-{number}") for number in range(10)]
    ledger = GpuLedger(holders, requested={})
    assert {ledger.rooms_in_turn(one).nodes for one in holders} == {frozenset("ab")}
    assert len(looked) == len(NODES)


@pytest.mark.parametrize(
    ("change", "unplaced"),
    [
        pytest.param(lambda _, __: None, 1, id="a pod that the scheduler has not seen"),
        pytest.param(lambda cluster, name: cluster.make_unschedulable(name), 0, id="no place was found"),
        pytest.param(lambda cluster, name: cluster.pods.pop(name), 1, id="no pod yet"),
        pytest.param(lambda cluster, name: cluster.make_ready(name), 0, id="placed"),
    ],
)
def test_what_is_on_its_way_is_read_from_the_pods(change: Any, unplaced: int) -> None:
    cluster = Cluster(EMULATED)
    cluster.settle()
    cluster.edit({"scaling": {"replicas": 3}})
    cluster.reconcile()
    cluster.run_controllers()
    (new,) = set(cluster.live()) - set(cluster.serving())
    change(cluster, new)
    found = holder_of(cluster.observe(), name="chat", size=1, pods=3, yields=True)
    assert found.unplaced == unplaced
    assert sum(found.placed.values()) == len(cluster.serving())
