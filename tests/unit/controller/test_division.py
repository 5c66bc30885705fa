"""Several services on the same GPUs: who gets which, tick by tick, until nothing moves any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from paceline.api import Shape as ApiShape
from paceline.controller.advice_book import AdviceBook
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.decision_loop import DecisionLoop
from paceline.controller.decision_metrics import DecisionMetrics
from paceline.controller.decision_store import DecisionStore
from paceline.controller.division import Division, Wish
from paceline.controller.instruments import Instruments
from paceline.controller.resources import INFERENCE_SERVICE
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Observed
from paceline.fleet.shape import standing_shape
from paceline.fleet.variant import observed_variants
from paceline.metrics import ServiceFacts, ServiceMetrics
from paceline.planner import Decision, Observation, PlannerState, Shape
from paceline.planner.capacity import room
from tests.unit.controller.test_decision_loop import Gates, Writer, metrics
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster

GPU, NODE, GPUS = "nvidia.com/gpu", "node-a", 8


class Wisher:
    """Stands for the planner: as many replicas as the test says, as far as there is room for them."""

    sizes = (1,)

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.asked: list[Observation] = []

    def decide(self, observation: Observation, state: PlannerState) -> Decision:
        self.asked.append(observation)
        assert observation.current is not None
        there = room(observation, 1)
        shape = replace(observation.current, replicas=max(min(self.wanted, there.most), 1))
        return Decision(
            shape=shape,
            reason="Steady" if shape == observation.current else "Limited",
            message=observation.grant.why if observation.grant is not None else "as it wants",
            feasible=True,
            limit=there.limit if self.wanted > there.most else "None",
            predicted=None,
            candidates=(),
            would_change=(),
            confidence=1.0,
            state=state,
        )


class Town:
    """One node of 8 GPUs and services on it, with a scheduler that knows what is free."""

    def __init__(self, budget: int | None = None, **services: dict[str, Any]) -> None:
        self.clusters: dict[ServiceKey, Cluster] = {}
        self.wishers: dict[ServiceKey, Wisher] = {}
        self.silent: set[ServiceKey] = set()
        """Services whose metrics are unknown."""

        self.cache, self.advice = ClusterCache(), AdviceBook()
        for name, scaling in services.items():
            key = ServiceKey("team-a", name)
            spec = {"mode": "Auto", "replicaBounds": {"min": 1, "max": 8}, **scaling}
            cluster = self.clusters[key] = Cluster(merged(EMULATED, {"scaling": spec}), name=name)
            del cluster.nodes["node-b"]
            cluster.settle()
            self.wishers[key] = Wisher(cluster.service["spec"]["scaling"]["replicas"])
            self.cache.put(INFERENCE_SERVICE, cluster.service)
        writer = Writer(next(iter(self.clusters.values())), self.cache)
        self.cache.children = lambda _: {}  # type: ignore[method-assign, assignment]
        self.loop = DecisionLoop(
            cache=self.cache,
            looks=cast(Any, self),
            source=cast(Any, self),
            gates=cast(Any, Gates()),
            planners=cast(Any, self),
            requests=cast(Any, self),
            quotas=cast(Any, self),
            advice=self.advice,
            store=DecisionStore(cast(Any, writer), cache=self.cache),
            metrics=DecisionMetrics(),
            instruments=Instruments(),
            wanted=lambda *_: None,
            period_s=15,
            gpu_budget=budget,
        )

    # what the loop asks for

    def look(self, key: ServiceKey) -> Observed | None:
        return self.clusters[key].observe()

    def by_node(self) -> dict[str, dict[str, float]]:
        return {NODE: {GPU: float(self.placed())}}

    async def collect(self, services: Mapping[ServiceKey, ServiceFacts]) -> dict[ServiceKey, ServiceMetrics]:
        away = replace(metrics().availability, available=False)
        unknown = metrics(availability=away, source="None")
        return {key: unknown if key in self.silent else metrics() for key in services}

    async def read(self) -> None:
        """No quotas."""

    def of(self, key: ServiceKey | str, _: Observed | None = None) -> Any:
        return self.wishers[key] if isinstance(key, ServiceKey) else ()

    def forget(self, _: ServiceKey) -> None:
        """Nothing is kept."""

    # what the test does and sees

    def wants(self, **wanted: int) -> None:
        for name, replicas in wanted.items():
            self.wishers[ServiceKey("team-a", name)].wanted = replicas

    async def tick(self) -> None:
        await self.loop.tick()
        for key, cluster in self.clusters.items():
            cluster.advice = self.advice.of(key)
            cluster.now_s += 15

    def follow(self, *, drains_end: bool = True) -> None:
        """The fleet takes its next steps, and pods go where there is room."""
        for cluster in self.clusters.values():
            cluster.reconcile()
            cluster.run_controllers()
            if drains_end:
                cluster.end_drains()
        for cluster in self.clusters.values():
            for name in cluster.live():
                if cluster.pods[name]["spec"].get("nodeName") or self.placed() < GPUS:
                    cluster.make_ready(name)
            for name in list(cluster.pods):
                if name not in cluster.engine_pods():
                    cluster.make_ready(name)
            cluster.run_controllers()
            cluster.reconcile()

    async def pass_time(self, ticks: int = 12) -> None:
        for _ in range(ticks):
            await self.tick()
            self.follow()

    def placed(self) -> int:
        """GPUs of all engine pods with a node, those that drain too."""
        return sum(
            bool(cluster.pods[name]["spec"].get("nodeName"))
            for cluster in self.clusters.values()
            for name in cluster.engine_pods()
        )

    def live(self) -> dict[str, int]:
        return {key.name: len(cluster.live()) for key, cluster in self.clusters.items()}

    def chosen(self) -> dict[str, int]:
        choices = {key.name: one.choice for key in self.clusters if (one := self.advice.of(key)) is not None}
        return {name: one.shape.replicas for name, one in choices.items() if one is not None}

    def limit(self, name: str) -> tuple[str | None, str]:
        advice = self.advice.of(ServiceKey("team-a", name))
        assert advice is not None
        assert advice.choice is not None
        return advice.choice.limit, advice.choice.message


async def test_two_services_never_get_the_same_free_gpus() -> None:
    town = Town(a={}, b={})
    town.wants(a=7, b=7)
    await town.tick()
    assert town.chosen() == {"a": 4, "b": 4}


async def test_who_wishes_alone_gets_what_is_free() -> None:
    town = Town(a={}, b={})
    town.wants(a=7)
    await town.tick()
    assert town.chosen() == {"a": 6, "b": 2}
    assert town.limit("a")[0] == "Inventory"


def test_a_place_that_one_took_is_not_there_for_the_next_although_there_are_gpus_enough() -> None:
    """Six free on one node and two on another: two replicas of four by count, one by place."""
    seen: dict[ServiceKey, tuple[Observed, ApiShape | None]] = {}
    for name in ("a", "b"):
        cluster = Cluster(
            merged(EMULATED, {"scaling": {"mode": "Auto", "replicas": 1, "tensorParallelSize": 4}}), name=name
        )
        cluster.add_node("node-c")
        cluster.settle()
        observed = cluster.observe()
        seen[ServiceKey("team-a", name)] = observed, standing_shape(observed, observed_variants(observed))
    used = {"node-a": 8.0, "node-b": 2.0, "node-c": 6.0}
    division = Division(seen, requested={node: {GPU: gpus} for node, gpus in used.items()}, budget=None)
    wish = Wish(shape=Shape(tensor_parallel_size=4, replicas=2))
    for key in seen:
        assert sum(one.count * one.free for one in division.nodes_in_turn(key)) == 8
        division.wish(key, wish)
    first, second = division.in_turn()
    assert division.cut(first) is None
    division.take(first, wish)
    cut = division.cut(second)
    assert cut is not None
    assert cut.grant is None
    assert sorted((one.free, one.count) for one in cut.nodes) == [(0, 1), (2, 2)]


async def test_what_was_asked_for_a_moment_ago_is_not_free_though_no_pod_shows_it() -> None:
    town = Town(a={}, b={})
    town.wants(a=6)
    await town.tick()
    for cluster in town.clusters.values():
        cluster.reconcile()
    town.wants(b=6)
    await town.tick()
    assert town.chosen() == {"a": 6, "b": 2}


async def test_a_higher_priority_takes_what_the_lower_has_beyond_its_floor_and_waits_for_its_drains() -> None:
    town = Town(gold={"priority": 10}, bronze={"replicas": 6, "replicaBounds": {"min": 2, "max": 8}})
    town.wants(gold=7, bronze=6)
    for _ in range(3):
        await town.tick()
        # Its pods leave, and none has gone yet.
        assert town.chosen() == {"gold": 2, "bronze": 2}
        assert town.limit("bronze") == (
            "Priority",
            "other services hold GPUs of its nodes or come before it (priority 0): 2 are left to it",
        )
        town.follow(drains_end=False)
        assert town.placed() <= GPUS
    for _ in range(20):
        await town.tick()
        town.follow()
        assert town.placed() <= GPUS
    assert town.live() == {"gold": 6, "bronze": 2}
    town.wants(gold=3)
    await town.pass_time()
    assert town.live() == {"gold": 3, "bronze": 5}


async def test_no_more_is_taken_from_the_lower_than_the_higher_needs() -> None:
    town = Town(gold={"priority": 10}, bronze={"replicas": 6})
    town.wants(gold=4)
    await town.pass_time()
    assert town.live() == {"gold": 4, "bronze": 4}


async def test_the_budget_is_never_exceeded_and_is_named() -> None:
    town = Town(5, gold={"priority": 10, "replicas": 1}, bronze={"replicas": 1})
    town.wants(gold=1, bronze=6)
    await town.pass_time()
    assert town.live() == {"gold": 1, "bronze": 4}
    assert town.limit("bronze") == (
        "ClusterBudget",
        "the cluster's budget of 5 GPUs leaves 4 to this service (priority 0)",
    )
    town.wants(gold=6)
    for _ in range(12):
        await town.tick()
        town.follow()
        assert town.placed() <= 5
    assert town.live() == {"gold": 4, "bronze": 1}
    assert town.limit("gold")[0] == "ClusterBudget"
    assert "priority 10" in town.limit("gold")[1]


async def test_a_budget_that_shrank_takes_by_priority_and_leaves_the_floors() -> None:
    town = Town(4, gold={"priority": 10, "replicas": 3}, bronze={"replicas": 4})
    await town.pass_time()
    assert town.live() == {"gold": 3, "bronze": 1}


@pytest.mark.parametrize(
    ("other", "is_silent"),
    [
        pytest.param({"mode": "Manual"}, False, id="Manual"),
        pytest.param({"mode": "Advisory"}, False, id="Advisory"),
        pytest.param({}, True, id="metrics unknown"),
    ],
)
async def test_who_does_not_follow_decisions_keeps_what_it_has_and_it_counts(
    other: dict[str, Any], is_silent: bool
) -> None:
    town = Town(6, gold={"priority": 10, "replicas": 1}, other={"replicas": 3, **other})
    if is_silent:
        town.silent.add(ServiceKey("team-a", "other"))
    town.wants(gold=8, other=5)
    await town.pass_time()
    assert town.live() == {"gold": 3, "other": 3}


async def test_who_is_not_cut_is_asked_once_and_who_is_twice() -> None:
    town = Town(5, a={}, b={})
    town.wants(a=2, b=4)
    await town.tick()
    asked = {key.name: len(one.asked) for key, one in town.wishers.items()}
    assert asked == {"a": 1, "b": 2}


async def test_one_that_breaks_keeps_its_gpus_and_stops_nobody() -> None:
    town = Town(6, a={}, b={})
    town.wants(b=8)

    def broken(*_: Any) -> Decision:
        raise ZeroDivisionError

    town.wishers[ServiceKey("team-a", "a")].decide = broken  # type: ignore[method-assign, assignment]
    with capture_logs():
        await town.pass_time()
    assert town.live() == {"a": 2, "b": 4}
