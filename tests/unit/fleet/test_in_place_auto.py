"""Verify the change in place in Auto: begun at once where the planner saw no room beside, and counted in whole pods."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.api import Shape
from paceline.fleet.gpu_ledger import holder_of
from paceline.fleet.in_place import ROUTING_S, Offer, offer, pod_layout, told_variants
from tests.unit.fleet.services import merged
from tests.unit.fleet.simulated_cluster import Cluster
from tests.unit.fleet.test_autoscaling import advise, desired, shape
from tests.unit.fleet.test_in_place import TP4, TP8, eights, follow, order, serving, step

AUTO = {"scaling": {"mode": "Auto", "replicaBounds": {"min": 1, "max": 16}}}


def auto(pods: int, **transition: Any) -> Cluster:
    return serving(merged(eights(pods, **transition), AUTO))


@pytest.fixture
def one() -> Cluster:
    return auto(1, maxHoldSeconds=120)


def advise_in_place(cluster: Cluster, to: Shape) -> None:
    advise(cluster, to, in_place=True)


def changed(cluster: Cluster) -> Cluster:
    """Its only pod holds two replicas of size 4."""
    (pod,) = cluster.live()
    advise_in_place(cluster, shape(2, 4))
    cluster.reconcile()
    follow(cluster, pod, TP4)
    assert step(cluster) == "Done"
    cluster.settle()
    return cluster


def test_no_pod_is_made_where_the_planner_saw_no_room_for_it(one: Cluster) -> None:
    (pod,) = one.live()
    advise_in_place(one, shape(2, 4))
    made = one.reconcile()
    assert made.status_first
    assert step(one) == "Reshaping"
    assert (order(one, pod) or "").startswith(TP4)
    one.run_controllers()
    assert one.engine_pods() == [pod]
    follow(one, pod, TP4)
    assert step(one) == "Done"
    assert desired(one) == shape(2, 4)
    assert one.status.shape is not None
    assert one.status.shape.current == shape(2, 4)


@pytest.mark.parametrize("actions", range(4))
def test_an_operator_that_dies_while_it_begins_is_continued_without_the_advice(
    one: Cluster, actions: int
) -> None:
    (pod,) = one.live()
    advise_in_place(one, shape(2, 4))
    one.carry_out(one.plan(), actions=actions)
    one.advice = None
    one.reconcile()
    one.run_controllers()
    assert step(one) == "Reshaping"
    assert one.engine_pods() == [pod]


def test_without_that_advice_new_pods_are_tried_first(one: Cluster) -> None:
    advise(one, shape(2, 4))
    one.reconcile()
    assert step(one) == "Starting"


def test_what_may_not_be_changed_in_place_begins_beside() -> None:
    cluster = auto(1)
    advise_in_place(cluster, shape(2, 4))
    cluster.reconcile()
    assert step(cluster) == "Starting"


def test_a_change_that_a_pod_refuses_is_given_up_for_a_while_and_the_old_shape_stays(one: Cluster) -> None:
    (pod,) = one.live()
    advise_in_place(one, shape(2, 4))
    one.reconcile()
    one.start_in(pod, TP8, refused="out of memory")
    one.reconcile()
    (refused,) = one.status.refused_shapes
    assert (refused.tensor_parallel_size, refused.replicas) == (4, 2)
    assert "out of memory" in refused.message
    assert desired(one) == shape(1, 8)


def test_the_planner_is_offered_what_the_fleet_would_do(one: Cluster) -> None:
    assert offer(one.observe()) == Offer(pods=1, gpus_per_pod=8, away_s=5 + ROUTING_S)
    one.edit({"transition": {"inPlace": "Disabled", "maxHoldSeconds": 0}})
    assert offer(one.observe()) is None


@pytest.mark.parametrize("what", ["starts", "says nothing", "has another image"])
def test_nothing_is_offered_while_a_pod(what: str) -> None:
    cluster = auto(2)
    pod = cluster.live()[0]
    match what:
        case "starts":
            cluster.make_ready(pod, ready=False)
        case "says nothing":
            del cluster.pods[pod]["info"]
        case "has another image":
            cluster.edit({"runtime": {"image": "registry.example/vllm:2"}})
    assert offer(cluster.observe()) is None


def test_replicas_of_changed_pods_come_and_go_by_whole_pods(one: Cluster) -> None:
    cluster = changed(one)
    assert pod_layout(told_variants(cluster.observe()), tensor_parallel_size=4).data_parallel_size == 2
    advise(cluster, shape(4, 4))
    cluster.reconcile()
    assert list(cluster.variants().values()) == [2]


def test_a_pod_that_finds_no_place_takes_all_its_replicas_from_the_shape(one: Cluster) -> None:
    cluster = changed(one)
    before = set(cluster.live())
    advise(cluster, shape(4, 4))
    cluster.reconcile()
    cluster.run_controllers()
    (new,) = set(cluster.live()) - before
    cluster.make_unschedulable(new)
    cluster.advice = None
    cluster.now_s += 121
    cluster.reconcile()
    assert desired(cluster) == shape(2, 4)
    assert cluster.status.refused_shapes[0].replicas == 4


def test_the_gpus_of_a_changed_pod_are_not_promised_once_more(one: Cluster) -> None:
    cluster = changed(one)
    found = holder_of(cluster.observe(), name="chat", size=8, pods=1, yields=True)
    assert (found.held, found.unplaced) == (8, 0)
