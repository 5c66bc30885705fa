"""A service that fills its node gets another image, old pods first: a real operator, killed again and again, and a real
API server with the controllers that make and take pods.

The test stands for scheduler and kubelet: GPUs go to whoever asks first, a pod serves a moment after it has them, and one
that leaves holds them for as long as its last requests take.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.controller.cluster import Cluster, Raw, eventually, pods_of, service
from tests.integration.controller.kubelet import bind, remove, say
from tests.integration.controller.operators import Operators, bury
from tests.integration.controller.repeated import repeated

pytestmark = pytest.mark.apiserver

GPUS = 8
START_S, DRAIN_S = 0.5, 1.0
WITHIN_S = 120.0
KILLS = 8
OTHER = {"spec": {"runtime": {"image": "other:1"}}}


class Node:
    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._since_s: dict[tuple[str, str], float] = {}
        self.broken_image: str | None = None
        """Its engines never become Ready."""

    def turn(self) -> None:
        pods = sorted(pods_of(self._cluster, "chat"), key=lambda one: one["metadata"]["creationTimestamp"])
        free = GPUS - sum(_gpus(pod) for pod in pods if pod["spec"].get("nodeName"))
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                if self._for_s(pod, "leaving") >= DRAIN_S:
                    remove(self._cluster, pod)
            elif _is_router(pod):
                say(self._cluster, pod, ready=True)
            elif not pod["spec"].get("nodeName"):
                if _gpus(pod) <= free:
                    free -= _gpus(pod)
                    bind(self._cluster, pod, node=self._name)
                else:
                    say(self._cluster, pod, ready=False, scheduled=False)
            elif _image(pod) != self.broken_image and self._for_s(pod, "placed") >= START_S:
                say(self._cluster, pod, ready=True)

    def _for_s(self, pod: Raw, what: str) -> float:
        now_s = time.monotonic()
        return now_s - self._since_s.setdefault((pod["metadata"]["uid"], what), now_s)


def _gpus(pod: Raw) -> int:
    return int(pod["metadata"]["labels"].get("paceline.dev/tensor-parallel-size", 0))


def _image(pod: Raw) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def _is_router(pod: Raw) -> bool:
    return bool(pod["metadata"]["labels"]["paceline.dev/component"] == "router")


def _is_serving(pod: Raw) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())
    return ready and not _is_router(pod) and "deletionTimestamp" not in pod["metadata"]


@contextmanager
def full_node(cluster: Cluster, name: str) -> Iterator[Node]:
    node = Node(cluster, name)
    with repeated(node.turn, every_s=0.2):
        yield node


def filling(replicas: int, **transition: Any) -> Raw:
    return service(
        "chat",
        replicas=replicas,
        tensor_parallel_size=GPUS // replicas,
        model={"uri": "hf://org/model@main", "maxModelTokens": 2048},
        accelerator={"resourceName": "nvidia.com/gpu"},
        runtime={"emulation": {"stepMilliseconds": 20}},
        transition={"recreate": "Enabled", "pendingDeadlineSeconds": 5, **transition},
        admission={"maxOutputTokens": 500, "maxRequestSeconds": 240},
        router={"replicas": 1},
    )


def serving(cluster: Cluster) -> list[Raw]:
    return [pod for pod in pods_of(cluster, "chat") if _is_serving(pod)]


def transition(cluster: Cluster) -> Raw:
    status = (cluster.get("InferenceService", "chat") or {}).get("status") or {}
    return dict(status.get("transition") or {})


def ended(cluster: Cluster, image: str | None, replicas: int) -> bool:
    """Only pods of that image serve, all of them, and nothing is under way."""
    images = [_image(pod) for pod in serving(cluster)]
    right = [one == image if image is not None else one != "other:1" for one in images]
    settled = cluster.condition("chat", "Transitioning").get("status") == "False"
    return settled and len(right) == replicas and all(right) and len(cluster.engines("chat")) == 1


def test_two_pods_give_way_one_after_the_other_while_the_operator_is_killed(
    cluster: Cluster, operators: Operators, node: str, record_property: Any
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    print(f"seed {seed}")
    dice = random.Random(seed)
    cluster.create("InferenceService", filling(2))
    operator = operators.start().await_leading()
    with full_node(cluster, node):
        eventually(lambda: ended(cluster, None, 2), within_s=WITHIN_S)
        cluster.patch("InferenceService", "chat", OTHER)
        fewest, steps = 2, set[str]()
        for _ in range(KILLS):
            life_ends_s = time.monotonic() + dice.uniform(0.5, 3)
            while time.monotonic() < life_ends_s:
                fewest = min(fewest, len(serving(cluster)))
                steps.add(transition(cluster).get("step", ""))
                time.sleep(0.1)
            bury(cluster, operator)
            operator = operators.start().await_leading()

        def is_over() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(serving(cluster)))
            steps.add(transition(cluster).get("step", ""))
            return ended(cluster, "other:1", 2)

        eventually(is_over, within_s=WITHIN_S)
    print(f"fewest that served: {fewest}; steps seen: {sorted(steps)}")
    assert fewest == 1
    assert "Stopping" in steps
    assert (transition(cluster)["id"], transition(cluster)["step"]) == (1, "Done")
    assert transition(cluster)["recreateGpus"] == GPUS
    assert any(one["reason"] == "Recreating" for one in cluster.events("chat"))


def test_the_only_pod_comes_back_when_the_new_one_does_not_get_ready(
    cluster: Cluster, operators: Operators, node: str
) -> None:
    cluster.create("InferenceService", filling(1, readyDeadlineSeconds=10))
    operator = operators.start().await_leading()
    with full_node(cluster, node) as machine:
        eventually(lambda: ended(cluster, None, 1), within_s=WITHIN_S)
        machine.broken_image = "other:1"
        cluster.patch("InferenceService", "chat", OTHER)
        eventually(
            lambda: cluster.condition("chat", "Ready").get("reason") == "Recreating", within_s=WITHIN_S
        )
        bury(cluster, operator)
        operators.start().await_leading()
        eventually(lambda: transition(cluster).get("step") == "RolledBack", within_s=WITHIN_S)
        eventually(lambda: ended(cluster, None, 1), within_s=WITHIN_S)
        eventually(lambda: cluster.condition("chat", "Ready").get("status") == "True", within_s=30)
    status = (cluster.get("InferenceService", "chat") or {})["status"]
    assert status["refused"]["reason"] == "ReadyDeadlineExceeded"
