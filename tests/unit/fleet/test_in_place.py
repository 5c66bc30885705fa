"""Verify the change in place: after a surge that finds no GPUs, one pod after the other, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from paceline.fleet.in_place import LAYOUT_REFUSED
from paceline_core import LAYOUT_ANNOTATION
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster

TP8, TP4, TP2 = "tp=8,dp=1", "tp=4,dp=2", "tp=2,dp=4"


def eights(replicas: int, **transition: Any) -> Mapping[str, Any]:
    """Pods of eight GPUs of a model that any size fits."""
    return merged(
        EMULATED,
        {
            "model": {"uri": "hf://org/model@main"},
            "scaling": {"replicas": replicas, "tensorParallelSize": 8},
            "transition": {"inPlace": "Enabled", "readyDeadlineSeconds": 120, **transition},
            "admission": {"maxRequestSeconds": 600},
        },
    )


def serving(spec: Mapping[str, Any]) -> Cluster:
    cluster = Cluster(spec)
    cluster.settle()
    for pod in cluster.live():
        cluster.start_in(pod, TP8)
    cluster.now_s += 10
    cluster.reconcile()
    return cluster


@pytest.fixture
def one() -> Cluster:
    """A single pod, which may be away for two minutes."""
    return serving(eights(1, maxHoldSeconds=120))


@pytest.fixture
def two() -> Cluster:
    return serving(eights(2))


def ask(cluster: Cluster, *, size: int, replicas: int) -> None:
    """Edit the spec; the scheduler finds no place for what comes."""
    before = set(cluster.engine_pods())
    cluster.edit({"scaling": {"tensorParallelSize": size, "replicas": replicas}})
    cluster.reconcile()
    cluster.run_controllers()
    for pod in set(cluster.live()) - before:
        cluster.make_unschedulable(pod)
    cluster.reconcile()
    cluster.run_controllers()
    cluster.end_drains()
    cluster.reconcile()


def order(cluster: Cluster, pod: str) -> str | None:
    """Without the number of the change."""
    text = cluster.pods[pod]["metadata"]["annotations"].get(LAYOUT_ANNOTATION)
    return (
        None if text is None else ",".join(part for part in text.split(",") if not part.startswith("change="))
    )


def step(cluster: Cluster) -> str:
    assert cluster.status.transition is not None
    return cluster.status.transition.step


def follow(cluster: Cluster, pod: str, layout: str) -> None:
    cluster.start_in(pod, layout)
    cluster.now_s += 6
    cluster.reconcile()


def shape(cluster: Cluster) -> tuple[int, int]:
    assert cluster.status.shape is not None
    assert cluster.status.shape.current is not None
    return cluster.status.shape.current.replicas, cluster.status.shape.current.tensor_parallel_size


def test_a_surge_that_finds_gpus_is_preferred(one: Cluster) -> None:
    (old,) = one.variants()
    one.edit({"scaling": {"tensorParallelSize": 4, "replicas": 2}})
    one.settle()
    assert list(one.variants().values()) == [2]
    assert old not in one.variants()


def test_one_pod_goes_through_every_layout_and_back_and_stays_the_same_pod(one: Cluster) -> None:
    (pod,) = one.live()
    for size, replicas, layout in ((4, 2, TP4), (2, 4, TP2), (8, 1, TP8)):
        ask(one, size=size, replicas=replicas)
        assert step(one) == "Reshaping"
        assert (order(one, pod) or "").startswith(layout)
        one.make_ready(pod, ready=False)
        one.reconcile()
        assert one.condition("Ready")[:2] == ("True", "ChangingInPlace")
        follow(one, pod, layout)
        assert step(one) == "Done"
        assert shape(one) == (replicas, size)
        assert one.condition("Progressing")[:2] == ("False", "Settled")
        assert one.live() == [pod]
        assert list(one.variants().values()) == [1]


def test_the_pod_that_comes_in_place_of_a_changed_one_is_told_before_it_serves(one: Cluster) -> None:
    (pod,) = one.live()
    ask(one, size=4, replicas=2)
    follow(one, pod, TP4)
    one.delete_pod(pod)
    one.end_drains()
    one.run_controllers()
    (new,) = one.live()
    one.reconcile()
    assert order(one, new) == TP4


def test_pods_change_one_at_a_time(two: Cluster) -> None:
    first, second = sorted(two.live())
    ask(two, size=4, replicas=4)
    assert (order(two, first), order(two, second)) == (TP4, None)
    two.make_ready(first, ready=False)
    two.reconcile()
    assert order(two, second) is None
    follow(two, first, TP4)
    assert order(two, second) == TP4
    follow(two, second, TP4)
    assert step(two) == "Done"
    assert shape(two) == (4, 4)


def test_nothing_is_told_while_a_node_of_the_pods_is_leaving(two: Cluster) -> None:
    first, second = sorted(two.live())
    ask(two, size=4, replicas=4)
    two.cordon(two.pods[second]["spec"]["nodeName"])
    follow(two, first, TP4)
    assert order(two, second) is None


def test_a_layout_that_a_pod_refuses_is_taken_back_from_all(two: Cluster) -> None:
    first, second = sorted(two.live())
    ask(two, size=4, replicas=4)
    follow(two, first, TP4)
    two.start_in(second, TP8, refused="out of memory")
    two.reconcile()
    assert step(two) == "RollingBack"
    assert two.status.refused is not None
    assert two.status.refused.reason == LAYOUT_REFUSED
    assert "out of memory" in two.status.refused.message
    two.reconcile()
    assert (order(two, first), order(two, second)) == (TP8, TP8)
    follow(two, first, TP8)
    assert step(two) == "RolledBack"
    two.settle()
    assert shape(two) == (2, 8)
    assert order(two, first) == TP8


def test_a_refused_layout_is_tried_again_by_another_edit(one: Cluster) -> None:
    (pod,) = one.live()
    ask(one, size=4, replicas=2)
    told = one.pods[pod]["metadata"]["annotations"][LAYOUT_ANNOTATION]
    one.start_in(pod, TP8, refused="out of memory")
    for _ in range(3):
        one.reconcile()
    assert step(one) == "RolledBack"
    one.edit({"scaling": {"tensorParallelSize": 8, "replicas": 1}})
    one.reconcile()
    ask(one, size=4, replicas=2)
    assert step(one) == "Reshaping"
    assert one.pods[pod]["metadata"]["annotations"][LAYOUT_ANNOTATION] != told


def test_a_pod_that_does_not_come_back_in_time_is_told_its_old_layout(one: Cluster) -> None:
    (pod,) = one.live()
    ask(one, size=4, replicas=2)
    one.make_ready(pod, ready=False)
    one.now_s += 60 + 600 + 120 + 1
    one.reconcile()
    assert step(one) == "RollingBack"
    assert order(one, pod) == TP8


def test_another_spec_waits_for_the_end_of_a_change(two: Cluster) -> None:
    first, second = sorted(two.live())
    ask(two, size=4, replicas=4)
    two.edit({"scaling": {"tensorParallelSize": 8, "replicas": 2}})
    two.reconcile()
    follow(two, first, TP4)
    assert (step(two), order(two, second)) == ("Reshaping", TP4)


@pytest.mark.parametrize(
    ("transition", "replicas", "why"),
    [
        pytest.param({"inPlace": "Disabled"}, 2, "no GPUs", id="disabled"),
        pytest.param({}, 2, "maxHoldSeconds", id="the-only-pod-and-no-hold"),
        pytest.param({"maxHoldSeconds": 24}, 2, "maxHoldSeconds", id="the-hold-is-too-short"),
        pytest.param({"maxHoldSeconds": 120}, 1, "whole pods", id="half-a-pod"),
        pytest.param({"maxHoldSeconds": 120}, 4, "whole pods", id="more-pods-than-there-are"),
    ],
)
def test_where_it_may_not_be_the_surge_is_rolled_back_and_says_why(
    transition: dict[str, Any], replicas: int, why: str
) -> None:
    cluster = serving(eights(1, **transition))
    (pod,) = cluster.live()
    ask(cluster, size=4, replicas=replicas)
    assert step(cluster) == "Starting"
    cluster.now_s += 121
    cluster.reconcile()
    assert step(cluster) == "RollingBack"
    assert cluster.status.refused is not None
    assert why in cluster.status.refused.message
    assert order(cluster, pod) is None


def test_a_pod_whose_runtime_does_not_say_its_layout_is_left_alone() -> None:
    cluster = serving(eights(1, maxHoldSeconds=120))
    (pod,) = cluster.live()
    del cluster.pods[pod]["info"]
    ask(cluster, size=4, replicas=2)
    assert step(cluster) == "Starting"
    assert order(cluster, pod) is None


def test_the_last_requests_get_what_the_hold_leaves_after_the_start(one: Cluster) -> None:
    (pod,) = one.live()
    ask(one, size=4, replicas=2)
    assert order(one, pod) == f"{TP4},drain={120 - 20 - 5}"


@pytest.mark.parametrize("actions", range(8))
def test_an_operator_that_dies_in_the_middle_is_continued(actions: int) -> None:
    cluster = serving(eights(1, maxHoldSeconds=120))
    (pod,) = cluster.live()
    cluster.edit({"scaling": {"tensorParallelSize": 4, "replicas": 2}})
    cluster.reconcile()
    cluster.run_controllers()
    for new in set(cluster.live()) - {pod}:
        cluster.make_unschedulable(new)
    cluster.carry_out(cluster.plan(), actions=actions)
    for _ in range(3):
        cluster.reconcile()
        cluster.run_controllers()
        cluster.end_drains()
    assert step(cluster) == "Reshaping"
    assert (order(cluster, pod) or "").startswith(TP4)
    follow(cluster, pod, TP4)
    assert step(cluster) == "Done"
    assert shape(cluster) == (2, 4)
