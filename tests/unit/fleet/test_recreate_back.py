"""Verify the way back of a change by recreate: failed starts, rivals that take what was left, and other edits."""

from __future__ import annotations

import pytest

from paceline.fleet.names import ANNOTATION_ASKED
from tests.unit.fleet.full_node import IMAGE, FullNode, sides


@pytest.fixture
def two() -> FullNode:
    """Two pods of four GPUs each fill the node."""
    return FullNode(replicas=2, size=4, gpus=8)


@pytest.fixture
def one() -> FullNode:
    return FullNode(replicas=1, size=8, gpus=8)


def test_an_old_pod_that_does_not_go_ends_the_change(two: FullNode) -> None:
    (old,) = two.variants()
    two.drains_end = False
    two.edit(IMAGE)
    two.waits_in_vain()
    two.now_s += 10_000
    two.ends("RolledBack")
    assert sides(two, old) == (2, 0)
    assert two.status.refused is not None
    assert "did not leave" in two.status.refused.message


def test_old_pods_that_do_not_come_back_keep_nobody_from_another_edit() -> None:
    cluster = FullNode(replicas=3, size=2, gpus=6)
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    cluster.turns(until=lambda: sides(cluster, old) == (1, 2))
    cluster.broken = frozenset(cluster.variants())
    cluster.ends("RolledBack")
    assert cluster.least_serving >= 2
    assert len(cluster.serving()) == 2


def test_a_new_only_pod_that_does_not_get_ready_gives_its_gpus_back(one: FullNode) -> None:
    (old,) = one.variants()
    one.edit(IMAGE)
    one.waits_in_vain()
    one.broken = frozenset(one.variants()) - {old}
    one.turns(until=lambda: one.step == "RollingBack")
    assert one.status.refused is not None
    assert one.status.refused.reason == "ReadyDeadlineExceeded"
    one.ends("RolledBack")
    assert one.variants() == {old: 1}
    assert len(one.serving(old)) == 1
    for _ in range(50):
        one.turn()
    assert one.step == "RolledBack", "not tried again for this spec"
    assert one.status.transition is not None
    assert one.status.transition.id == 1


def test_a_way_back_of_which_one_half_was_carried_out_leads_to_the_old_pods(one: FullNode) -> None:
    """The new count was lowered, and the write of the old one was lost: neither has pods."""
    (old,) = one.variants()
    one.edit(IMAGE)
    one.waits_in_vain()
    one.broken = frozenset(one.variants()) - {old}
    one.turns(until=lambda: one.step == "RollingBack")
    one.engine(old)["spec"]["replicas"] = 0
    one.run_controllers()
    one.end_drains()
    one.turn()
    assert sides(one, old) == (1, 0)
    one.ends("RolledBack")
    assert one.variants() == {old: 1}
    assert len(one.serving(old)) == 1


def test_a_change_that_fails_half_way_goes_back_one_by_one() -> None:
    cluster = FullNode(replicas=4, size=2, gpus=8)
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    cluster.turns(until=lambda: sides(cluster, old) == (2, 2) and cluster.step == "Stopping")
    cluster.broken = frozenset(cluster.variants()) - {old}
    cluster.ends("RolledBack")
    assert cluster.variants() == {old: 4}
    assert len(cluster.serving(old)) == 4
    assert cluster.least_serving >= 2


def test_what_a_rival_takes_is_not_made_good_by_another_pod(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(IMAGE)
    two.waits_in_vain()
    two.rival_wants = 4
    two.ends("RolledBack")
    assert sides(two, old) == (2, 0)
    assert len(two.serving(old)) == 1
    assert two.least_serving == 1
    assert two.status.refused is not None
    assert two.status.refused.reason == "Unschedulable"
    assert "others have taken" in two.status.refused.message
    assert two.condition("CapacityAvailable")[:2] == ("False", "Unschedulable")
    two.gpus += 4
    two.turns(until=lambda: len(two.serving(old)) == 2)


def test_the_only_pod_whose_gpus_a_rival_took_comes_back_when_they_are_free(one: FullNode) -> None:
    (old,) = one.variants()
    one.edit(IMAGE)
    one.waits_in_vain()
    one.rival_wants = 8
    one.ends("RolledBack")
    assert sides(one, old) == (1, 0)
    assert one.condition("Ready")[:2] == ("False", "Unschedulable")
    one.gpus += 8
    one.turns(until=lambda: len(one.serving(old)) == 1)


def test_a_rival_that_comes_half_way_leaves_one_variant_and_not_two() -> None:
    """Old pods go back to what was not taken, though a new one serves that has to make room for it."""
    cluster = FullNode(replicas=3, size=2, gpus=6)
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    cluster.turns(until=lambda: sides(cluster, old) == (1, 2))
    cluster.rival_wants = 2
    cluster.ends("RolledBack")
    assert sides(cluster, old) == (3, 0)
    assert len(cluster.serving(old)) == 2
    assert cluster.least_serving >= 1


def test_once_only_new_pods_serve_there_is_no_way_back() -> None:
    """The last pod's GPUs go to a rival: to stop the new ones for old ones would be a second loss."""
    cluster = FullNode(replicas=2, size=4, gpus=8)
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    cluster.turns(until=lambda: sides(cluster, old)[0] == 0)
    cluster.rival_wants = 4
    cluster.ends("Done")
    assert sides(cluster, old) == (0, 2)
    assert len(cluster.serving()) == 1
    assert cluster.least_serving == 1
    assert cluster.status.refused is None


def test_another_spec_in_mid_change_takes_the_first_back_then_begins() -> None:
    cluster = FullNode(replicas=3, size=2, gpus=6)
    (old,) = cluster.variants()
    cluster.edit(IMAGE)
    cluster.turns(until=lambda: sides(cluster, old) == (1, 2))
    cluster.edit({"runtime": {"image": "third:1"}})
    cluster.turn()
    assert cluster.step == "RollingBack"
    cluster.ends("Done")
    ((last, replicas),) = cluster.variants().items()
    assert replicas == 3
    assert cluster.engine(last)["spec"]["template"]["spec"]["containers"][0]["image"] == "third:1"
    assert cluster.least_serving >= 1


def test_the_old_spec_again_in_mid_change_brings_the_old_pods_back(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit(IMAGE)
    two.waits_in_vain()
    two.edit({"runtime": {"image": ""}})
    two.ends("RolledBack")
    assert two.variants() == {old: 2}
    assert len(two.serving(old)) == 2


def test_the_count_that_the_old_pods_go_back_to_is_kept_at_another_size(two: FullNode) -> None:
    (old,) = two.variants()
    two.edit({"scaling": {"replicas": 1, "tensorParallelSize": 8}})
    two.waits_in_vain()
    assert two.engine(old)["metadata"]["annotations"][ANNOTATION_ASKED] == "2"
    two.broken = frozenset(two.variants()) - {old}
    two.ends("RolledBack")
    assert two.variants() == {old: 2}
