"""Killed at any moment and started again, the operator ends where one that lived would have ended."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from tests.integration.controller.cluster import (
    Cluster,
    eventually,
    expected_children,
    service,
)
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.operators import Operators, bury

pytestmark = pytest.mark.apiserver

KILLS = 24
LONGEST_LIFE_S = 2.5
"""From the lease to the kill. A change of TP takes about as long here: pods are Ready half a second after they
appear, and each step waits for the one before."""


def ended(cluster: Cluster, tensor_parallel_size: int) -> bool:
    """One variant of that TP with all its replicas, Ready, and nothing else."""
    engines = cluster.engines("chat")
    if len(engines) != 1:
        return False
    name, engine = next(iter(engines.items()))
    status = (cluster.get("InferenceService", "chat") or {}).get("status") or {}
    current = (status.get("shape") or {}).get("current") or {}
    return (
        engine["metadata"]["labels"]["paceline.dev/tensor-parallel-size"] == str(tensor_parallel_size)
        and engine["spec"]["replicas"] == 2
        and engine["status"].get("readyReplicas") == 2
        and current == {"tensorParallelSize": tensor_parallel_size, "replicas": 2}
        and cluster.condition("chat", "Transitioning").get("status") == "False"
        and cluster.condition("chat", "Ready").get("status") == "True"
        and set(cluster.children("chat")) == {*expected_children("chat"), ("Deployment", name)}
    )


def serving(cluster: Cluster) -> int:
    return sum(one["status"].get("readyReplicas") or 0 for one in cluster.engines("chat").values())


def test_killed_at_any_moment_of_a_tp_change_it_converges_to_the_same_end(
    cluster: Cluster, operators: Operators, record_property: Any
) -> None:
    """TP 1 to 3 and back, again and again, under an operator that lives for a random moment each time."""
    seed = random.randrange(2**32)
    record_property("seed", seed)
    print(f"seed {seed}")
    dice = random.Random(seed)
    cluster.create("InferenceService", service("chat", replicas=2, tensor_parallel_size=1))
    operator = operators.start().await_leading()
    with kubelet(cluster):
        eventually(lambda: ended(cluster, 1), within_s=60)
        wanted, changes, midway = 1, 0, 0
        for _ in range(KILLS):
            # Mostly in the middle of a change; the spec is turned around only once one has ended.
            if ended(cluster, wanted):
                changes += 1
                wanted = 4 - wanted
                patch = {"spec": {"scaling": {"tensorParallelSize": wanted}}}
                cluster.patch("InferenceService", "chat", patch)
            time.sleep(dice.uniform(0, LONGEST_LIFE_S))
            assert serving(cluster) >= 2, "a surge never serves with less than what it had"
            midway += cluster.condition("chat", "Transitioning").get("status") == "True"
            bury(cluster, operator)
            operator = operators.start().await_leading()
        eventually(lambda: ended(cluster, wanted), within_s=60)
    print(f"{KILLS} kills, {midway} of them in the middle of a change; {changes} changes begun")
    assert midway >= KILLS // 4
    assert changes >= 3


def test_killed_while_it_makes_a_service_it_makes_the_rest_later(
    cluster: Cluster, operators: Operators
) -> None:
    dice = random.Random(7)
    operator = operators.start().await_leading()
    for number in range(5):
        name = f"chat-{number}"
        cluster.create("InferenceService", service(name))
        time.sleep(dice.uniform(0, 0.3))
        bury(cluster, operator)
        operator = operators.start().await_leading()
        engines = eventually(lambda name=name: cluster.engines(name), within_s=30)  # type: ignore[misc]
        eventually(
            lambda name=name: set(cluster.children(name)),  # type: ignore[misc]
            holds=lambda found, name=name, engines=engines: (  # type: ignore[misc]
                found == {*expected_children(name), *(("Deployment", one) for one in engines)}
            ),
            within_s=30,
        )
        assert len(engines) == 1
