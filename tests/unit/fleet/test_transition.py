"""Verify the surge: new pods first, one change at a time, and the way back."""

from __future__ import annotations

import json

import pytest

from tests.unit.fleet.services import EMULATED
from tests.unit.fleet.simulated_cluster import Cluster

TP2 = {"scaling": {"tensorParallelSize": 3}}
REFUSAL = json.dumps(
    {"verdict": "Refused", "field": "spec.model.uri", "message": "no such model: write another"}
)


@pytest.fixture
def cluster() -> Cluster:
    """Two Ready replicas of the first variant."""
    made = Cluster(EMULATED)
    made.settle()
    assert list(made.variants().values()) == [2]
    return made


def begin(cluster: Cluster) -> tuple[str, str]:
    """Edit the spec and let the new pods be made; (old variant, new variant)."""
    (old,) = cluster.variants()
    cluster.edit(TP2)
    cluster.reconcile()
    cluster.run_controllers()
    (new,) = set(cluster.variants()) - {old}
    return old, new


def finish(cluster: Cluster, variant: str) -> None:
    """All its pods are Ready, and have been long enough for the routers to know."""
    for pod in cluster.live(variant):
        cluster.make_ready(pod)
    cluster.now_s += 5


def test_a_change_makes_the_new_pods_and_leaves_the_old_ones(cluster: Cluster) -> None:
    old, new = begin(cluster)
    assert cluster.variants() == {old: 2, new: 2}
    assert cluster.status.transition is not None
    assert (cluster.status.transition.from_variant, cluster.status.transition.to_variant) == (old, new)
    assert cluster.status.transition.step == "Starting"


def test_the_old_variant_leaves_only_when_every_new_pod_is_ready(cluster: Cluster) -> None:
    old, new = begin(cluster)
    first, second = cluster.live(new)
    cluster.make_ready(first)
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 2}
    cluster.make_ready(second)
    cluster.now_s += 5
    cluster.reconcile()
    assert cluster.variants() == {old: 0, new: 2}


def test_the_old_variant_waits_until_the_routers_can_know_the_new_pods(cluster: Cluster) -> None:
    old, new = begin(cluster)
    for pod in cluster.live(new):
        cluster.make_ready(pod)
    made = cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 2}
    assert made.requeue_after_s is not None
    cluster.now_s += made.requeue_after_s
    cluster.reconcile()
    assert cluster.variants() == {old: 0, new: 2}


def test_drains_run_aside_and_the_old_deployment_goes_after_its_last_pod(cluster: Cluster) -> None:
    old, new = begin(cluster)
    finish(cluster, new)
    cluster.reconcile()
    cluster.run_controllers()
    cluster.reconcile()
    assert cluster.status.transition is not None
    assert cluster.status.transition.step == "Done"
    assert cluster.status.gpus is not None
    assert cluster.status.gpus.draining == 2
    assert old in cluster.variants()
    cluster.end_drains()
    cluster.reconcile()
    assert cluster.variants() == {new: 2}


def test_the_next_change_may_begin_while_the_last_one_drains(cluster: Cluster) -> None:
    _, new = begin(cluster)
    finish(cluster, new)
    cluster.reconcile()
    cluster.run_controllers()
    cluster.edit({"scaling": {"tensorParallelSize": 9}})
    cluster.reconcile()
    assert cluster.status.transition is not None
    assert cluster.status.transition.id == 2
    assert cluster.status.transition.from_variant == new


def test_a_step_is_in_the_status_before_anything_of_it_is_done(cluster: Cluster) -> None:
    cluster.edit(TP2)
    started = cluster.plan()
    marked = [one for one in started.apply if one.status_first]
    assert [one.kind for one in marked] == ["Deployment"]
    assert started.status.transition is not None
    assert started.status.transition.step == "Starting"
    cluster.carry_out(started)
    cluster.run_controllers()
    assert started.status.transition.to_variant is not None
    finish(cluster, started.status.transition.to_variant)
    switched = cluster.plan()
    lowered = [one for one in switched.apply if one.status_first]
    assert [one.object["spec"]["replicas"] for one in lowered] == [0]
    assert lowered[0].resource_version is not None
    assert switched.status.transition is not None
    assert switched.status.transition.step == "Draining"


def test_a_crash_between_the_status_and_the_action_is_made_good(cluster: Cluster) -> None:
    old, new = begin(cluster)
    finish(cluster, new)
    cluster.carry_out(cluster.plan(), actions=0)
    assert cluster.variants() == {old: 2, new: 2}
    cluster.settle()
    assert cluster.variants() == {new: 2}


def test_at_the_deadline_the_change_is_taken_back_and_not_tried_again(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.now_s += 901
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 0}
    assert cluster.status.refused is not None
    assert cluster.status.refused.reason == "ReadyDeadlineExceeded"
    assert len(cluster.serving(old)) == 2
    cluster.settle()
    assert cluster.variants() == {old: 2}
    assert cluster.status.transition is not None
    assert cluster.status.transition.step == "RolledBack"
    assert cluster.condition("Progressing")[1] == "ReadyDeadlineExceeded"


def test_a_change_of_the_spec_tries_a_rolled_back_change_again(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.now_s += 901
    cluster.settle()
    assert cluster.variants() == {old: 2}
    cluster.edit({"transition": {"readyDeadlineSeconds": 1800}})
    cluster.settle()
    assert cluster.variants() == {new: 2}
    assert cluster.status.refused is None


def test_a_pod_without_a_node_takes_the_change_back_at_the_shorter_deadline(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.make_unschedulable(cluster.live(new)[0])
    cluster.now_s += 119
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 2}
    cluster.now_s += 2
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 0}
    assert cluster.status.refused is not None
    assert cluster.status.refused.reason == "Unschedulable"
    assert "no GPUs" in cluster.status.refused.message


def test_a_launchers_refusal_takes_the_change_back_at_once(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.say_verdict(cluster.live(new)[0], REFUSAL)
    made = cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 0}
    assert cluster.condition("Feasible")[:2] == ("False", "Refused")
    assert "spec.model.uri" in cluster.condition("Feasible")[2]
    assert ("Warning", "TransitionRolledBack") in {(one.type, one.reason) for one in made.events}
    cluster.settle()
    assert len(cluster.serving(old)) == 2


def test_a_pod_that_serves_has_got_over_an_earlier_refusal(cluster: Cluster) -> None:
    """Its volume came late: the verdict of its first container still stands in lastState."""
    old, new = begin(cluster)
    cluster.say_verdict(cluster.live(new)[0], REFUSAL)
    cluster.make_ready(cluster.live(new)[0])
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 2}


def test_a_failed_start_waits_for_its_deadline(cluster: Cluster) -> None:
    """A crash may pass; only a refusal never does."""
    old, new = begin(cluster)
    cluster.say_verdict(cluster.live(new)[0], '{"verdict":"Failed","stage":"weights","message":"disk"}')
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 2}


def test_another_spec_in_mid_change_takes_the_first_back_then_begins(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.edit({"scaling": {"tensorParallelSize": 9}})
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 0}
    assert cluster.status.refused is None
    cluster.reconcile()
    assert cluster.status.transition is not None
    assert cluster.status.transition.id == 2
    cluster.settle()
    (last,) = cluster.variants()
    assert last.startswith("tp9-")


def test_going_back_to_the_old_spec_in_mid_change_keeps_its_pods(cluster: Cluster) -> None:
    old, _ = begin(cluster)
    pods = set(cluster.live(old))
    cluster.edit({"scaling": {"tensorParallelSize": 1}})
    cluster.settle()
    assert cluster.variants() == {old: 2}
    assert set(cluster.live(old)) == pods


def test_scaling_up_in_mid_change_reaches_the_new_variant_at_once(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.edit({"scaling": {"replicas": 4}})
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 4}


def test_scaling_up_in_mid_change_reaches_the_old_variant_of_the_same_size(cluster: Cluster) -> None:
    (old,) = cluster.variants()
    cluster.edit({"runtime": {"image": "other:1"}})
    cluster.reconcile()
    cluster.edit({"scaling": {"replicas": 4}})
    cluster.reconcile()
    assert cluster.variants()[old] == 4


def test_scaling_down_in_mid_change_leaves_the_old_variant_whole(cluster: Cluster) -> None:
    (old,) = cluster.variants()
    cluster.edit({"runtime": {"image": "other:1"}})
    cluster.reconcile()
    cluster.edit({"scaling": {"replicas": 1}})
    cluster.reconcile()
    assert cluster.variants()[old] == 2


def test_scaling_down_in_mid_change_keeps_the_new_pods_that_stand_in_for_lost_ones(cluster: Cluster) -> None:
    old, new = begin(cluster)
    for pod in cluster.live(new):
        cluster.make_ready(pod)
    for pod in cluster.live(old):
        cluster.make_ready(pod, ready=False)
    cluster.run_controllers()
    cluster.edit({"scaling": {"replicas": 1}})
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 2}
    cluster.settle()
    assert cluster.variants() == {new: 1}


def test_no_change_begins_while_the_router_pods_are_replaced(cluster: Cluster) -> None:
    cluster.router_holds_still = True
    cluster.run_controllers()
    cluster.edit(TP2)
    cluster.reconcile()
    assert len(cluster.variants()) == 1
    assert cluster.condition("Progressing")[:2] == ("True", "Waiting")
    cluster.router_holds_still = False
    cluster.run_controllers()
    cluster.reconcile()
    assert len(cluster.variants()) == 2


def test_what_leaves_keeps_the_pods_that_the_other_lacks(cluster: Cluster) -> None:
    """The new variant loses a pod between the switch and the decrement."""
    old, new = begin(cluster)
    finish(cluster, new)
    cluster.carry_out(cluster.plan(), actions=0)
    cluster.make_ready(cluster.live(new)[0], ready=False)
    cluster.reconcile()
    assert cluster.variants() == {old: 1, new: 2}
    cluster.settle()
    assert cluster.variants() == {new: 2}


def test_a_variant_that_never_served_makes_room_at_once() -> None:
    """It holds the GPUs that its correction needs."""
    cluster = Cluster(EMULATED)
    cluster.reconcile()
    cluster.run_controllers()
    (broken,) = cluster.variants()
    cluster.edit({"runtime": {"image": "mended:1"}})
    cluster.reconcile()
    assert cluster.variants()[broken] == 0
    cluster.settle()
    assert broken not in cluster.variants()
    assert len(cluster.serving()) == 2


def test_a_variant_that_served_once_is_worth_waiting_for(cluster: Cluster) -> None:
    """All its pods are NotReady for a moment (a node reboots): it is no reason to give it up."""
    (old,) = cluster.variants()
    cluster.reconcile()
    for pod in cluster.live(old):
        cluster.make_ready(pod, ready=False)
    cluster.edit(TP2)
    cluster.reconcile()
    assert cluster.variants()[old] == 2


def test_a_first_start_that_is_refused_gives_its_gpus_back() -> None:
    cluster = Cluster(EMULATED)
    cluster.reconcile()
    cluster.run_controllers()
    cluster.say_verdict(cluster.live()[0], REFUSAL)
    cluster.reconcile()
    assert list(cluster.variants().values()) == [0]
    assert cluster.condition("Feasible")[:2] == ("False", "Refused")
    cluster.run_controllers()
    cluster.end_drains()
    for _ in range(3):
        cluster.reconcile()
        cluster.run_controllers()
    assert cluster.live() == []
    assert cluster.condition("Ready")[1] == "Refused"
    cluster.edit({"model": {"servedNames": ["other"]}})
    cluster.settle()
    assert len(cluster.serving()) == 2


def test_a_refused_change_of_size_does_not_apply_its_replicas_to_the_old_size() -> None:
    """Three replicas at TP 1 for one at TP 9: one alone at TP 1 would carry a third of the load."""
    cluster = Cluster(EMULATED)
    cluster.edit({"scaling": {"replicas": 3}})
    cluster.settle()
    (old,) = cluster.variants()
    cluster.edit({"scaling": {"replicas": 1, "tensorParallelSize": 9}})
    cluster.reconcile()
    cluster.run_controllers()
    cluster.now_s += 901
    cluster.settle()
    assert cluster.variants() == {old: 3}


def test_a_refused_change_at_the_same_size_is_scaled_as_asked(cluster: Cluster) -> None:
    (old,) = cluster.variants()
    cluster.edit({"runtime": {"image": "broken:1"}, "scaling": {"replicas": 3}})
    cluster.reconcile()
    cluster.run_controllers()
    cluster.now_s += 901
    cluster.settle()
    assert cluster.variants() == {old: 3}


def test_a_lost_status_changes_nothing_that_serves(cluster: Cluster) -> None:
    _, new = begin(cluster)
    finish(cluster, new)
    del cluster.service["status"]
    before = len(cluster.serving())
    cluster.reconcile()
    cluster.run_controllers()
    assert len(cluster.serving()) >= min(before, 2)
    cluster.settle()
    assert cluster.variants() == {new: 2}


def test_a_deleted_engine_deployment_comes_back_at_once(cluster: Cluster) -> None:
    (variant,) = cluster.variants()
    cluster.delete_child("Deployment", f"chat-{variant}")
    cluster.reconcile()
    assert cluster.variants() == {variant: 2}


def test_the_target_deleted_in_mid_change_is_made_again(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.delete_child("Deployment", f"chat-{new}")
    cluster.reconcile()
    assert cluster.variants() == {old: 2, new: 2}


def test_the_old_variant_deleted_in_mid_change_is_not_mourned(cluster: Cluster) -> None:
    old, new = begin(cluster)
    cluster.delete_child("Deployment", f"chat-{old}")
    cluster.now_s += 901
    cluster.reconcile()
    assert cluster.variants() == {new: 2}
    cluster.settle()
    assert len(cluster.serving(new)) == 2
