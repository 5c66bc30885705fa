"""Verify what stays of changes that are given up one after the other: what is lacking, and no more."""

from __future__ import annotations

import pytest

from tests.unit.fleet.services import EMULATED
from tests.unit.fleet.simulated_cluster import Cluster
from tests.unit.fleet.test_transition import begin, finish


@pytest.fixture
def cluster() -> Cluster:
    """Two Ready replicas of the first variant."""
    made = Cluster(EMULATED)
    made.settle()
    return made


def give_up_for(cluster: Cluster, patch: dict[str, object]) -> str:
    """Edit the spec in mid-change, until the next change has begun; its variant."""
    before = set(cluster.variants())
    cluster.now_s += 1
    cluster.edit(patch)
    for _ in range(2):
        cluster.reconcile()
        cluster.run_controllers()
    (new,) = set(cluster.variants()) - before
    return new


def test_changes_given_up_one_after_the_other_keep_together_what_is_lacking(cluster: Cluster) -> None:
    """Each of them has a pod that serves; the old variant lacks one. Two would hold GPUs for nothing."""
    old, first = begin(cluster)
    cluster.make_ready(cluster.live(first)[0])
    cluster.make_ready(cluster.live(old)[0], ready=False)
    second = give_up_for(cluster, {"scaling": {"tensorParallelSize": 9}})
    assert cluster.variants() == {old: 2, first: 1, second: 2}
    cluster.make_ready(cluster.live(second)[0])
    third = give_up_for(cluster, {"runtime": {"image": "other:1"}})
    cluster.end_drains()
    cluster.reconcile()
    assert cluster.variants() == {old: 2, first: 1, third: 2}
    assert len(cluster.serving()) == 2
    cluster.settle()
    assert cluster.variants() == {third: 2}


def test_what_is_about_to_be_taken_does_not_stand_in_for_another(cluster: Cluster) -> None:
    """The only pod that the first change left is on a node that is being emptied: the second keeps its own too."""
    old, first = begin(cluster)
    (standing_in, _) = cluster.live(first)
    cluster.make_ready(standing_in)
    cluster.make_ready(cluster.live(old)[0], ready=False)
    second = give_up_for(cluster, {"scaling": {"tensorParallelSize": 9}})
    cluster.make_ready(cluster.live(second)[0])
    cluster._condition(cluster.pods[standing_in], "DisruptionTarget", "True", "PreemptionByScheduler")
    give_up_for(cluster, {"runtime": {"image": "other:1"}})
    assert (cluster.variants()[first], cluster.variants()[second]) == (1, 1)


def test_what_stands_in_for_a_variant_that_never_served_gets_no_pods_of_its_own(cluster: Cluster) -> None:
    """The new pods were Ready for a moment that no plan but the last one saw; then another image is asked for."""
    old, new = begin(cluster)
    finish(cluster, new)
    cluster.carry_out(cluster.plan(), actions=0)
    for pod in (*cluster.live(new), cluster.live(old)[0]):
        cluster.make_ready(pod, ready=False)
    cluster.edit({"runtime": {"image": "mended:1"}})
    cluster.reconcile()
    assert cluster.variants() == {old: 1, new: 2}
    cluster.reconcile()
    (mended,) = set(cluster.variants()) - {old, new}
    assert cluster.variants() == {old: 1, new: 0, mended: 2}
    cluster.settle()
    assert cluster.variants() == {mended: 2}
