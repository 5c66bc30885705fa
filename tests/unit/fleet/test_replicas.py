"""Verify scaling within a variant: up at once, down only one serving pod at a time and in calm."""

from __future__ import annotations

import pytest

from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster


def settled(replicas: int) -> Cluster:
    cluster = Cluster(merged(EMULATED, {"scaling": {"replicas": replicas}}))
    cluster.settle()
    return cluster


def count(cluster: Cluster) -> int:
    (replicas,) = cluster.variants().values()
    return replicas


def test_up_goes_at_once() -> None:
    cluster = settled(1)
    cluster.edit({"scaling": {"replicas": 4}})
    made = cluster.reconcile()
    assert count(cluster) == 4
    assert not made.status_first


def test_down_goes_one_serving_pod_at_a_time() -> None:
    cluster = settled(3)
    cluster.edit({"scaling": {"replicas": 1}})
    seen = []
    for _ in range(6):
        cluster.reconcile()
        cluster.run_controllers()
        seen.append(count(cluster))
    assert seen[:3] == [2, 1, 1]


def test_the_second_step_waits_until_the_first_is_carried_out() -> None:
    cluster = settled(3)
    cluster.edit({"scaling": {"replicas": 1}})
    cluster.reconcile()
    cluster.reconcile()
    assert count(cluster) == 2


def test_a_decrement_is_bound_to_the_deployment_as_it_was_seen() -> None:
    cluster = settled(2)
    (variant,) = cluster.variants()
    version = cluster.engine(variant)["metadata"]["resourceVersion"]
    cluster.edit({"scaling": {"replicas": 1}})
    (lowered,) = [one for one in cluster.plan().apply if one.status_first]
    assert lowered.resource_version == version
    assert lowered.body()["metadata"]["resourceVersion"] == version


def test_pods_that_do_not_serve_go_together() -> None:
    cluster = settled(1)
    cluster.edit({"scaling": {"replicas": 4}})
    cluster.reconcile()
    cluster.run_controllers()
    cluster.edit({"scaling": {"replicas": 1}})
    cluster.reconcile()
    assert count(cluster) == 1
    cluster.run_controllers()
    assert len(cluster.serving()) == 1


def test_a_cordoned_node_gets_a_stand_in_before_anything_goes() -> None:
    cluster = settled(2)
    cluster.cordon("node-a")
    cluster.reconcile()
    assert count(cluster) == 3


def test_the_stand_in_stays_while_the_nodes_pod_does_and_goes_after_it() -> None:
    cluster = settled(2)
    cluster.cordon("node-a")
    cluster.settle()
    assert (count(cluster), len(cluster.serving())) == (3, 3)
    (victim,) = [pod for pod in cluster.serving() if cluster.pods[pod]["spec"]["nodeName"] == "node-a"]
    cluster.evict(victim)
    cluster.run_controllers()
    cluster.settle()
    assert (count(cluster), len(cluster.serving())) == (2, 2)


def test_no_more_stand_ins_than_evictions_may_take_at_once() -> None:
    cluster = settled(4)
    cluster.cordon("node-a")
    cluster.cordon("node-b")
    cluster.reconcile()
    assert count(cluster) == 5
    cluster.edit({"disruption": {"maxUnavailable": 3}})
    cluster.reconcile()
    assert count(cluster) == 7


def test_a_taint_of_an_autoscaler_counts_as_a_cordon() -> None:
    cluster = settled(2)
    cluster.nodes["node-a"]["spec"]["taints"] = [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]
    cluster.reconcile()
    assert count(cluster) == 3


def deletes_one(cluster: Cluster) -> None:
    cluster.delete_pod(cluster.serving()[0])
    cluster.run_controllers()


def evicts_one(cluster: Cluster) -> None:
    cluster.evict(cluster.serving()[0])
    cluster.run_controllers()


def announces_an_eviction(cluster: Cluster) -> None:
    pod = cluster.pods[cluster.serving()[0]]
    cluster._condition(pod, "DisruptionTarget", "True", "PreemptionByScheduler")


def cordons(cluster: Cluster) -> None:
    cluster.cordon("node-a")


def rolls_the_router(cluster: Cluster) -> None:
    cluster.router_holds_still = True
    cluster.run_controllers()


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(deletes_one, id="foreign-deletion"),
        pytest.param(evicts_one, id="eviction"),
        pytest.param(announces_an_eviction, id="disruption-target"),
        pytest.param(cordons, id="cordon"),
        pytest.param(rolls_the_router, id="router-roll"),
    ],
)
def test_nothing_is_taken_away_while_somebody_else_is_taking(disturb: object) -> None:
    cluster = settled(4)
    assert callable(disturb)
    disturb(cluster)
    cluster.edit({"scaling": {"replicas": 2}})
    before = count(cluster)
    for _ in range(3):
        cluster.reconcile()
        assert count(cluster) >= before
    assert cluster.condition("Progressing")[:2] == ("True", "Waiting")


def test_a_foreign_deletion_no_longer_holds_back_once_it_is_made_good() -> None:
    cluster = settled(4)
    deletes_one(cluster)
    cluster.edit({"scaling": {"replicas": 3}})
    cluster.reconcile()
    assert count(cluster) == 4
    for pod in cluster.live():
        cluster.make_ready(pod)
    cluster.reconcile()
    assert count(cluster) == 3


def test_our_own_decrement_does_not_look_like_a_foreign_deletion() -> None:
    """The drain of the first step may last half an hour; the second need not wait for it."""
    cluster = settled(3)
    cluster.edit({"scaling": {"replicas": 1}})
    cluster.reconcile()
    cluster.run_controllers()
    cluster.now_s += 60
    cluster.reconcile()
    assert count(cluster) == 1


def test_a_pod_the_quota_refuses_does_not_block_the_way_down() -> None:
    cluster = settled(2)
    cluster.edit({"scaling": {"replicas": 5}})
    cluster.reconcile()
    (variant,) = cluster.variants()
    engine = cluster.engine(variant)
    engine["status"]["observedGeneration"] = engine["metadata"]["generation"]
    cluster.edit({"scaling": {"replicas": 2}})
    cluster.reconcile()
    assert count(cluster) == 2


def test_in_auto_an_edit_of_the_spec_never_resets_the_shape() -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": "Auto", "replicas": 3}}))
    cluster.settle()
    cluster.edit({"scaling": {"replicas": 1, "tensorParallelSize": 9}})
    cluster.settle()
    assert count(cluster) == 3
    assert cluster.status.shape is not None
    assert cluster.status.shape.desired is not None
    assert cluster.status.shape.desired.tensor_parallel_size == 1
    assert cluster.condition("ScalingActive")[:2] == ("False", "NotDriven")


def test_in_auto_another_edit_of_the_spec_keeps_the_shape_too() -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": "Advisory", "replicas": 3}}))
    cluster.settle()
    cluster.edit({"runtime": {"image": "other:1"}, "scaling": {"replicas": 1}})
    cluster.settle()
    assert count(cluster) == 3


def test_auto_takes_over_the_shape_that_manual_left() -> None:
    cluster = settled(3)
    cluster.edit({"scaling": {"mode": "Auto", "replicas": 1}})
    cluster.settle()
    assert count(cluster) == 3


def test_auto_finds_its_shape_again_when_the_status_is_lost() -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": "Auto", "replicas": 3}}))
    cluster.settle()
    cluster.edit({"scaling": {"replicas": 1}})
    del cluster.service["status"]
    cluster.settle()
    assert count(cluster) == 3


def test_auto_stays_within_the_bounds() -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": "Auto", "replicas": 3}}))
    cluster.settle()
    cluster.edit({"scaling": {"replicas": 1, "replicaBounds": {"min": 1, "max": 2}}})
    cluster.settle()
    assert count(cluster) == 2


def test_a_first_start_in_auto_that_never_served_is_mended_by_the_spec() -> None:
    cluster = Cluster(merged(EMULATED, {"scaling": {"mode": "Auto"}}))
    cluster.reconcile()
    cluster.run_controllers()
    cluster.edit({"scaling": {"tensorParallelSize": 3}})
    cluster.settle()
    (variant,) = cluster.variants()
    assert variant.startswith("tp3-")


def test_manual_follows_the_spec() -> None:
    cluster = settled(1)
    cluster.edit({"scaling": {"replicas": 3, "tensorParallelSize": 3}})
    cluster.settle()
    ((variant, replicas),) = cluster.variants().items()
    assert (variant[:4], replicas) == ("tp3-", 3)
