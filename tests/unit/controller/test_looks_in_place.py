"""The decision loop where pods may change in place, or did: what the planner is shown, and what is taken from others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paceline.controller.division import Division, Wish
from paceline.fleet.in_place import told_variants
from paceline.fleet.shape import standing_shape
from paceline.planner import InPlace, Shape
from tests.unit.controller.test_decision_loop import KEY, Stage
from tests.unit.fleet.services import merged
from tests.unit.fleet.simulated_cluster import Cluster
from tests.unit.fleet.test_autoscaling import shape
from tests.unit.fleet.test_in_place import TP4, eights, follow, order, serving
from tests.unit.fleet.test_in_place_auto import AUTO, advise_in_place, changed

GPU = "nvidia.com/gpu"
FULL = {"node-a": {GPU: 8.0}, "node-b": {GPU: 8.0}}


def on_eight(**transition: Any) -> Cluster:
    return serving(merged(eights(1, **transition), AUTO))


def stage(cluster: Cluster) -> Stage:
    made = Stage()
    made.cluster = cluster
    made.planner.sizes = (2, 4, 8)
    made.requests = FULL
    return made


async def test_the_planner_is_shown_what_a_change_in_place_takes() -> None:
    looks = stage(on_eight(maxHoldSeconds=120))
    await looks.tick()
    seen = looks.planner.asked[0][0]
    assert seen.in_place == InPlace(pods=1, gpus_per_pod=8, away_s=25.0, max_hold_s=120.0, most_held=200)
    assert seen.replicas_per_pod == 1
    assert seen.no_room_beside == (
        Shape(tensor_parallel_size=2, replicas=1),
        Shape(tensor_parallel_size=4, replicas=1),
    )


async def test_a_changed_pod_is_shown_as_the_replicas_that_it_holds() -> None:
    looks = stage(changed(on_eight(maxHoldSeconds=120)))
    await looks.tick()
    seen = looks.planner.asked[0][0]
    assert (seen.current, seen.replicas_per_pod) == (Shape(tensor_parallel_size=4, replicas=2), 2)
    (group,) = seen.groups
    assert (group.tensor_parallel_size, group.ready) == (4, 2)
    assert seen.start_times == (), "since its creation it has not only started"


async def test_a_pod_that_has_not_said_what_it_serves_in_is_waited_for() -> None:
    cluster = on_eight(maxHoldSeconds=120)
    (pod,) = cluster.live()
    advise_in_place(cluster, shape(2, 4))
    cluster.reconcile()
    assert (order(cluster, pod) or "").startswith(TP4)
    cluster.make_ready(pod, ready=False)
    cluster.make_ready(pod)
    del cluster.pods[pod]["info"]
    looks = stage(cluster)
    await looks.tick()
    assert looks.planner.asked == []
    advice = looks.advice.of(KEY)
    assert advice is not None
    assert pod in (advice.hindrance or "")
    follow(cluster, pod, TP4)
    await looks.tick()
    assert looks.planner.asked


def test_a_change_in_place_takes_no_gpus_from_others() -> None:
    cluster = on_eight(maxHoldSeconds=120)
    observed = cluster.observe()
    seen = {KEY: (observed, standing_shape(observed, told_variants(observed)))}
    to = Wish(shape=Shape(tensor_parallel_size=4, replicas=2), in_place=True)
    for wish, fits in ((to, True), (replace(to, in_place=False), False)):
        division = Division(seen, requested=FULL, budget=None)
        division.nodes_in_turn(KEY)
        division.wish(KEY, wish)
        assert (division.cut(KEY) is None) is fits


def test_a_service_of_changed_pods_grows_by_pods() -> None:
    cluster = changed(on_eight(maxHoldSeconds=120))
    observed = cluster.observe()
    seen = {KEY: (observed, standing_shape(observed, told_variants(observed)))}
    for free, fits in ((8.0, True), (7.0, False)):
        division = Division(seen, requested={"node-a": {GPU: 8.0}, "node-b": {GPU: 8.0 - free}}, budget=None)
        division.nodes_in_turn(KEY)
        division.wish(KEY, Wish(shape=Shape(tensor_parallel_size=4, replicas=4)))
        assert (division.cut(KEY) is None) is fits
