"""Verify the change by recreate on a full node: who leaves when, and what serves meanwhile."""

from __future__ import annotations

import random

import pytest
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from paceline.api import Shape
from paceline.fleet import Apply, Plan
from tests.unit.fleet.full_node import IMAGE, FullNode, sides
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster
from tests.unit.fleet.test_autoscaling import advise
from tests.unit.fleet.test_transition_orders import Engines


@pytest.fixture
def two() -> FullNode:
    """Two pods of four GPUs each fill the node."""
    return FullNode(replicas=2, size=4, gpus=8)


@pytest.fixture
def one() -> FullNode:
    return FullNode(replicas=1, size=8, gpus=8)


def test_nothing_that_serves_leaves_unless_the_spec_allows_it() -> None:
    cluster = FullNode(replicas=2, size=4, gpus=8, transition={"recreate": "Disabled"})
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    cluster.ends("RolledBack")
    assert cluster.variants() == {old: 2}
    assert cluster.least_serving == 2
    assert cluster.status.refused is not None
    assert cluster.status.refused.reason == "Unschedulable"


def test_old_pods_leave_one_by_one_and_one_always_serves(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(IMAGE)
    two.waits_in_vain()
    assert sides(two, old) == (1, 1)
    two.ends("Done")
    assert old not in two.variants()
    assert len(two.serving()) == 2
    assert two.least_serving == 1
    assert two.status.refused is None
    assert "by recreate" in two.condition("Transitioning")[2]
    assert two.condition("Progressing")[:2] == ("False", "Settled")


def test_gpus_are_waited_for_before_anything_leaves(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(IMAGE)
    began_s = two.now_s
    two.waits_in_vain()
    assert two.now_s - began_s >= 120
    assert old in two.variants()


def test_a_surge_that_finds_gpus_is_preferred() -> None:
    cluster = FullNode(replicas=2, size=4, gpus=16)
    cluster.edit(IMAGE)
    cluster.ends("Done")
    assert cluster.least_serving == 2
    assert cluster.status.transition is not None
    assert cluster.status.transition.recreate_gpus is None


def test_the_next_old_pod_stays_until_the_new_one_serves(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(IMAGE)
    two.waits_in_vain()
    (new,) = set(two.variants()) - {old}
    two.broken = frozenset({new})
    for _ in range(20):
        two.turn()
        assert sides(two, old) == (1, 1)
    assert two.step == "Starting"
    two.broken = frozenset()
    two.ends("Done")
    assert two.variants() == {new: 2}


def test_the_time_that_an_old_pod_drains_is_not_the_new_ones(two: FullNode) -> None:
    (old,) = two.variants()
    two.drains_end = False
    two.edit(IMAGE)
    two.waits_in_vain()
    for _ in range(30):
        two.turn()
        assert two.step == "Stopping"
        assert sides(two, old) == (1, 1)
    two.drains_end = True
    two.ends("Done")
    assert len(two.serving()) == 2


def test_some_new_pods_beside_leave_less_room_to_make() -> None:
    """Three of four GPUs are held: one new pod comes beside, and the others take turns."""
    cluster = FullNode(replicas=3, size=1, gpus=4)
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    cluster.turns(until=lambda: cluster.step in ("Stopping", "Done"))
    assert sides(cluster, old) == (2, 2)
    cluster.ends("Done")
    assert len(cluster.serving()) == 3
    assert cluster.least_serving == 3


@pytest.mark.parametrize(
    ("before", "after", "gpus", "least"),
    [
        pytest.param((4, 2), (8, 1), 8, 3, id="to-smaller-pods"),
        pytest.param((4, 2), (2, 4), 8, 1, id="to-larger-pods"),
        pytest.param((4, 1), (1, 4), 4, 0, id="to-one-that-takes-all"),
        pytest.param((1, 4), (1, 8), 8, 0, id="to-one-that-takes-more-than-was-held"),
        pytest.param((1, 8), (2, 4), 8, 0, id="from-the-only-one"),
    ],
)
def test_another_tensor_parallel_size(
    before: tuple[int, int], after: tuple[int, int], gpus: int, least: int
) -> None:
    cluster = FullNode(replicas=before[0], size=before[1], gpus=gpus)
    cluster.edit({"scaling": {"replicas": after[0], "tensorParallelSize": after[1]}})
    cluster.ends("Done")
    assert list(cluster.variants().values()) == [after[0]]
    assert cluster.status.shape is not None
    assert cluster.status.shape.current == Shape(replicas=after[0], tensor_parallel_size=after[1])
    assert cluster.least_serving == least


def test_more_replicas_than_the_node_holds_wait_as_after_any_growth(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(merged(IMAGE, {"scaling": {"replicas": 3}}))
    two.ends("Done")
    assert old not in two.variants()
    assert (len(two.serving()), len(two.live())) == (2, 3)
    assert two.condition("CapacityAvailable")[:2] == ("False", "Unschedulable")
    assert two.condition("Ready")[:2] == ("True", "SomeReplicasReady")


def test_while_the_only_pod_is_replaced_the_service_says_so(one: FullNode) -> None:
    (old,) = one.variants()
    one.edit(IMAGE)
    one.waits_in_vain()
    assert sides(one, old) == (0, 1)
    one.reconcile()
    status, reason, message = one.condition("Ready")
    assert (status, reason) == ("False", "Recreating")
    assert "held for up to 30 s" in message
    assert old in one.variants(), "its template is the way back"
    one.ends("Done")
    assert one.condition("Ready")[0] == "True"
    assert old not in one.variants()


def test_a_start_that_is_over_is_not_late_while_the_routers_are_replaced(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(IMAGE)
    two.waits_in_vain()
    two.router_holds_still = True
    two.turn()
    for _ in range(100):
        two.turn()
        assert sides(two, old) == (1, 1)
    two.router_holds_still = False
    two.ends("Done")
    assert len(two.serving()) == 2


@pytest.mark.parametrize("where", ["another pool", "a smaller node"])
def test_room_is_not_made_where_the_new_pods_cannot_use_it(one: FullNode, where: str) -> None:
    (old,) = one.variants()
    patch = (
        {"accelerator": {"nodeSelector": {"pool": "new"}}}
        if where == "another pool"
        else {"scaling": {"tensorParallelSize": 16}}
    )
    one.gpus = 8
    one.edit(patch)
    one.ends("RolledBack")
    assert one.variants() == {old: 1}
    assert one.least_serving == 1
    assert one.status.refused is not None
    assert "not by recreate either (no node of the pods" in one.status.refused.message


def test_nothing_leaves_while_a_node_of_the_pods_is_leaving(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(IMAGE)
    two.turn()
    two.cordon("node-a")
    for _ in range(20):
        two.turn()
    assert len(two.serving(old)) == 2
    assert two.status.refused is not None
    assert "a node of its pods is leaving" in two.status.refused.message


def test_auto_takes_it_for_an_image_and_not_for_another_size() -> None:
    cluster = FullNode(
        replicas=2, size=4, gpus=8, scaling={"mode": "Auto", "replicaBounds": {"min": 1, "max": 16}}
    )
    (old,) = cluster.variants()
    advise(cluster, Shape(replicas=4, tensor_parallel_size=2))
    cluster.turns(until=lambda: cluster.step == "Starting")
    cluster.ends("RolledBack")
    assert cluster.variants() == {old: 2}
    assert cluster.least_serving == 2
    assert "Auto does not take it" in cluster.status.refused_shapes[0].message
    cluster.advice = None
    cluster.edit(IMAGE)
    cluster.ends("Done")
    assert old not in cluster.variants()
    assert len(cluster.serving()) == 2


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("replicas", [1, 3])
def test_an_operator_that_dies_anywhere_is_continued(seed: int, replicas: int) -> None:
    dice = random.Random(seed)
    cluster = FullNode(replicas=replicas, size=2, gpus=2 * replicas)
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    for _ in range(400):
        cluster.turn(actions=dice.choice((0, 1, 2, 3, 4, 5, 6, None, None)))
        if cluster.step == "Done":
            break
    cluster.ends("Done")
    assert old not in cluster.variants()
    assert len(cluster.serving()) == replicas
    assert cluster.least_serving >= replicas - 1
    assert cluster.status.transition is not None
    assert cluster.status.transition.id == 1


def test_a_lost_status_in_the_gap_leaves_a_service_that_serves(one: FullNode) -> None:
    one.edit(IMAGE)
    one.waits_in_vain()
    del one.service["status"]
    one.turns(until=lambda: len(one.serving()) == 1)
    for _ in range(20):
        one.turn()
    assert list(one.variants().values()) == [1]


class RecreatingEngines(Engines):
    """The same events in any order, with recreate allowed: fewer may serve, and it still ends as it should."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(merged(EMULATED, {"transition": {"recreate": "Enabled"}}))

    @initialize(size=st.sampled_from((1, 3)), moves=st.integers(0, 4), late=st.booleans())
    def begin(self, size: int, moves: int, late: bool) -> None:
        """Somewhere between the first old pod that leaves and the last; or, late, on the way back."""
        self.cluster.settle()
        self.cluster.edit(merged(IMAGE, {"scaling": {"replicas": 3, "tensorParallelSize": size}}))
        self.carry_out(actions=None)
        self.cluster.run_controllers()
        self.nothing_is_free_for_long(None)
        for _ in range(moves):
            self.all_pods_become_ready()
            self.the_cluster_moves(drains_end=True, router_rolls=False)
            self.time_passes(5)
        if late:
            self.time_passes(1000)

    @rule(actions=st.sampled_from((None, 0, 3, 4)))
    def nothing_is_free_for_long(self, actions: int | None) -> None:
        for pod in set(self.cluster.live()) - set(self.cluster.serving()):
            self.cluster.make_unschedulable(pod)
        self.cluster.now_s += 130
        self.carry_out(actions=actions)
        event(f"{(self.cluster.service.get('status', {}).get('transition') or {}).get('step')}")

    def owed(self) -> int | None:
        return None

    def check_engine(self, action: Apply, made: Plan) -> None:
        transition = self.cluster.service.get("status", {}).get("transition", {})
        variant = action.object["metadata"].get("labels", {}).get("paceline.dev/variant")
        if transition.get("step") != "RollingBack" or variant != transition["from"]:
            super().check_engine(action, made)


TestRecreatingEngines = RecreatingEngines.TestCase
TestRecreatingEngines.settings = Engines.TestCase.settings
