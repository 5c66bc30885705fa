"""A node whose GPUs are all taken, with a scheduler: what the tests of a change by recreate play on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster

IMAGE = {"runtime": {"image": "other:1"}}
TURN_S = 10


class FullNode(Cluster):
    """One node, whose GPUs go to whoever comes first, a rival before everybody."""

    def __init__(self, *, replicas: int, size: int, gpus: int, **spec: Any) -> None:
        made = merged(
            EMULATED,
            {
                "model": {"uri": "hf://org/model@main"},
                "scaling": {"replicas": replicas, "tensorParallelSize": size},
                "transition": {"recreate": "Enabled"},
            },
        )
        super().__init__(merged(made, spec))
        del self.nodes["node-b"]
        self.gpus = gpus
        self.rival_wants = 0
        self.broken = frozenset[str]()
        """Variants of which no further pod becomes Ready."""
        self.drains_end = True
        self.least_serving = replicas
        self.turns(until=lambda: len(self.serving()) == replicas)
        self.turn()
        self.least_serving = replicas

    def turn(self, *, actions: int | None = None) -> None:
        """The operator looks, then ten seconds pass."""
        self.carry_out(self.plan(), actions=actions)
        self.run_controllers()
        self.least_serving = min(self.least_serving, len(self.serving()))
        self._schedule()
        for name, pod in self.pods.items():
            labels = pod["metadata"]["labels"]
            is_router = labels["paceline.dev/component"] == "router"
            placed = pod["spec"].get("nodeName") and labels.get("paceline.dev/variant") not in self.broken
            if (is_router or placed) and self._is_live(name):
                self.make_ready(name)
        self.run_controllers()
        if self.drains_end:
            self.end_drains()
        self.now_s += TURN_S

    def turns(self, *, until: Callable[[], bool], most: int = 400) -> None:
        for _ in range(most):
            if until():
                return
            self.turn()
        raise AssertionError(f"not in {most} turns: {self.fingerprint()}")

    def ends(self, step: str) -> None:
        self.turns(until=lambda: self.step == step)
        for _ in range(5):
            self.turn()

    def waits_in_vain(self) -> None:
        """For GPUs beside the old pods, until the first of these leaves."""
        self.turns(until=lambda: self.step == "Stopping")

    @property
    def step(self) -> str | None:
        transition = self.status.transition
        return transition.step if transition is not None else None

    def _schedule(self) -> None:
        free = self.gpus - sum(_size(pod) for pod in self.pods.values() if pod["spec"].get("nodeName"))
        if 0 < self.rival_wants <= free:
            self.gpus -= self.rival_wants
            free -= self.rival_wants
            self.rival_wants = 0
        for name in self.live():
            pod = self.pods[name]
            if pod["spec"].get("nodeName"):
                continue
            if _size(pod) <= free:
                free -= _size(pod)
                pod["spec"]["nodeName"] = "node-a"
                self.make_ready(name, ready=False)
            else:
                self.make_unschedulable(name)


def _size(pod: dict[str, Any]) -> int:
    return int(pod["metadata"]["labels"].get("paceline.dev/tensor-parallel-size", 0))


def sides(cluster: Cluster, old: str) -> tuple[int, int]:
    """Replicas of the old variant and of all others."""
    counts = cluster.variants()
    return counts.get(old, 0), sum(counts.values()) - counts.get(old, 0)
