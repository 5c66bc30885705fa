"""One tick of the decision loop: what the planner is shown, what becomes of its answer, what survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from paceline.controller.advice_book import AdviceBook
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.decision_loop import DecisionLoop
from paceline.controller.decision_metrics import DecisionMetrics
from paceline.controller.decision_record import candidates_of, observation_of
from paceline.controller.decision_store import DecisionStore
from paceline.controller.instruments import Instruments
from paceline.controller.resources import INFERENCE_SERVICE
from paceline.controller.work_queue import ServiceKey
from paceline.controller.writer import Outcome
from paceline.fleet import Apply, Observed
from paceline.fleet.decisions_config import DECISIONS, STATE
from paceline.metrics import Availability, EngineFigures, ServiceFacts, ServiceMetrics
from paceline.planner import (
    Candidate,
    Decision,
    Door,
    Figure,
    Observation,
    PlannerState,
    Prediction,
    Quantiles,
    Shape,
    Traffic,
)
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster

KEY = ServiceKey("team-a", "chat")
PREDICTED = Prediction(
    ttft_p50_s=0.1,
    ttft_p95_s=0.2,
    ttft_p99_s=0.3,
    tpot_p50_s=0.01,
    tpot_p95_s=0.02,
    tpot_p99_s=0.03,
    attainment=0.995,
    utilization=0.6,
)


def metrics(**changes: Any) -> ServiceMetrics:
    made = ServiceMetrics(
        availability=Availability(available=True, reason="Measured", message="All pods were heard."),
        source="Prometheus",
        traffic=Traffic(requests_per_s=Figure(value=3.0, samples=180), window_s=60),
        attainment=Figure(value=0.991, samples=180),
        engines={
            1: EngineFigures(
                time_per_output_token=Quantiles(p99_s=Figure(value=0.021), p50_s=Figure(value=0.01))
            )
        },
        client_time_to_first_token=Quantiles(p99_s=Figure(value=0.42)),
    )
    return replace(made, **changes)


@dataclass
class Planner:
    """Stands for the planner: answers what the test says and notes what it was asked."""

    sizes: tuple[int, ...] = (1, 3)
    replicas: int = 4
    message: str = "p99 TTFT would be 900 ms"
    asked: list[tuple[Observation, PlannerState]] = field(default_factory=list)

    def decide(self, observation: Observation, state: PlannerState) -> Decision:
        self.asked.append((observation, state))
        shape = Shape(tensor_parallel_size=1, replicas=self.replicas)
        stays = shape == observation.current
        return Decision(
            shape=shape,
            reason="Steady" if stays else "QueueingAboveTarget",
            message=self.message,
            feasible=True,
            limit="None",
            predicted=PREDICTED,
            candidates=(Candidate(shape=shape, gpus=shape.gpus, prediction=PREDICTED, rejected=None),),
            would_change=("half the load",),
            confidence=0.8,
            state=state,
        )

    def of(self, _: ServiceKey, __: Observed) -> Planner:
        return self

    def forget(self, _: ServiceKey) -> None:
        """Nothing is kept."""


class Source:
    def __init__(self) -> None:
        self.answer = metrics()
        self.asked: list[Mapping[ServiceKey, ServiceFacts]] = []

    async def collect(self, services: Mapping[ServiceKey, ServiceFacts]) -> dict[ServiceKey, ServiceMetrics]:
        self.asked.append(services)
        return dict.fromkeys(services, self.answer)


class Gates:
    """Stands for the gates of the service: what each says when it is asked."""

    def __init__(self) -> None:
        self.doors: dict[str, Door | None] = {"router-0": Door(held=0, in_flight=0, arrivals=5)}
        self.asked = 0

    async def ask(self, _: Any) -> dict[str, Door | None]:
        self.asked += 1
        return dict(self.doors)


class Writer:
    def __init__(self, cluster: Cluster, cache: ClusterCache) -> None:
        self.cluster = cluster
        self.writes: list[dict[str, Any]] = []
        self.children: dict[tuple[str, str], Any] = {}

    async def apply(self, _: ServiceKey, action: Apply, **__: Any) -> Outcome:
        body = cast(dict[str, Any], action.object)
        self.writes.append(body)
        live = {**body, "metadata": {**body["metadata"], "uid": "cm", "resourceVersion": "7"}}
        self.children[("ConfigMap", body["metadata"]["name"])] = live
        return Outcome.WROTE


class Stage:
    """The loop on a simulated cluster."""

    def __init__(self, mode: str = "Auto", **scaling: Any) -> None:
        bounds = {"replicaBounds": {"min": 1, "max": 6}}
        self.cluster = Cluster(merged(EMULATED, {"scaling": {"mode": mode, **bounds, **scaling}}))
        self.cluster.settle()
        self.planner, self.source, self.advice = Planner(), Source(), AdviceBook()
        self.gates = Gates()
        self.metrics = DecisionMetrics()
        self.wanted: list[tuple[ServiceKey, bool]] = []
        self.requests: dict[str, dict[str, float]] | None = {}
        self.quotas: list[dict[str, Any]] | None = []
        self.cache = ClusterCache()
        self.cache.put(
            INFERENCE_SERVICE,
            {
                **self.cluster.service,
                "metadata": {**self.cluster.service["metadata"], "resourceVersion": "1"},
            },
        )
        self.writer = Writer(self.cluster, self.cache)
        self.cache.children = lambda _: self.writer.children  # type: ignore[method-assign, assignment]
        self.start()

    def start(self) -> None:
        """As a new process does: nothing in memory."""
        self.loop = DecisionLoop(
            cache=self.cache,
            looks=cast(Any, self),
            source=cast(Any, self.source),
            gates=cast(Any, self.gates),
            planners=cast(Any, self.planner),
            requests=cast(Any, self),
            quotas=cast(Any, self),
            advice=self.advice,
            store=DecisionStore(cast(Any, self.writer), cache=self.cache),
            metrics=self.metrics,
            instruments=Instruments(),
            wanted=lambda key, urgent: self.wanted.append((key, urgent)),
            period_s=15,
            gpu_budget=None,
        )

    def look(self, _: ServiceKey) -> Observed | None:
        return self.cluster.observe()

    def by_node(self) -> dict[str, dict[str, float]] | None:
        return self.requests

    async def read(self) -> None:
        """Nothing to wait for."""

    def of(self, _: str) -> list[dict[str, Any]] | None:
        return self.quotas

    async def tick(self) -> None:
        await self.loop.tick()
        self.cluster.advice = self.advice.of(KEY)

    def scrape(self) -> str:
        registry = CollectorRegistry()
        registry.register(self.metrics)
        return generate_latest(registry).decode()


async def test_a_decision_reaches_the_engines() -> None:
    stage = Stage()
    await stage.tick()
    assert stage.wanted == [(KEY, True)]
    stage.cluster.settle()
    assert list(stage.cluster.variants().values()) == [4]
    await stage.tick()
    assert stage.planner.asked[-1][0].current == Shape(tensor_parallel_size=1, replicas=4)
    assert stage.wanted[-1] == (KEY, False)
    stage.cluster.settle()
    before = len(stage.wanted)
    stage.planner.message = "p99 TTFT would be 901 ms"
    await stage.tick()
    assert len(stage.wanted) == before, "a look that says nothing new, figures apart, wakes nobody"


async def test_the_planner_sees_goal_fleet_and_what_others_hold() -> None:
    stage = Stage(spareReplicas=1, scaleDown={"stabilizationSeconds": 60}, gpuBudget={"max": 12})
    stage.requests = {"node-a": {"nvidia.com/gpu": 5.0}}
    await stage.tick()
    seen = stage.planner.asked[0][0]
    assert [(one.total, one.free) for one in seen.nodes] == [(8, 3), (8, 8)]
    assert (seen.goal.min_replicas, seen.goal.max_replicas, seen.goal.max_gpus) == (1, 6, 12)
    assert (seen.goal.spare_replicas, seen.goal.scale_down_stabilization_s) == (1, 60)
    assert seen.goal.objective == 0.99
    assert seen.goal.allowed_tensor_parallel_sizes == (1, 3)
    (group,) = seen.groups
    assert (group.tensor_parallel_size, group.ready, group.starting) == (1, 2, 0)
    (start,) = seen.start_times
    assert start.starts == 2
    assert not seen.changing


async def test_the_planner_sees_what_a_quota_of_the_namespace_leaves() -> None:
    stage = Stage()
    stage.quotas = [
        {"status": {"hard": {"requests.nvidia.com/gpu": "10"}, "used": {"requests.nvidia.com/gpu": "6"}}}
    ]
    await stage.tick()
    seen = stage.planner.asked[0][0]
    assert seen.quota_gpus == 4
    # Beside the present pods, one replica of three.
    assert seen.no_room_beside == (Shape(tensor_parallel_size=3, replicas=2),)
    assert seen.refused == ()


async def test_where_quotas_are_unknown_the_service_takes_no_more_than_it_has() -> None:
    stage = Stage()
    stage.quotas = None
    await stage.tick()
    assert stage.planner.asked[0][0].quota_gpus == 0


async def test_quotas_are_read_beside_the_metrics() -> None:
    """Each waits for the other: one after the other would never end."""
    stage = Stage()
    reading, collecting = asyncio.Event(), asyncio.Event()
    collect = stage.source.collect

    async def slow_read() -> None:
        reading.set()
        await collecting.wait()

    async def slow_collect(facts: Mapping[ServiceKey, ServiceFacts]) -> dict[ServiceKey, ServiceMetrics]:
        collecting.set()
        await reading.wait()
        return await collect(facts)

    stage.read = slow_read  # type: ignore[method-assign]
    stage.source.collect = slow_collect  # type: ignore[method-assign, assignment]
    await asyncio.wait_for(stage.tick(), timeout=10)
    assert len(stage.planner.asked) == 1


async def test_without_the_other_pods_requests_our_own_are_subtracted() -> None:
    stage = Stage()
    stage.requests = None
    await stage.tick()
    assert sum(one.count * one.free for one in stage.planner.asked[0][0].nodes) == 16 - 2


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"scaling": {"mode": "Manual"}}, id="Manual"),
        pytest.param({"paused": True}, id="paused"),
        pytest.param(
            {
                "scaling": {
                    "override": {"replicas": 2, "tensorParallelSize": 1, "expiresAt": "2099-01-01T00:00:00Z"}
                }
            },
            id="override",
        ),
    ],
)
async def test_where_nobody_may_decide_the_planner_is_not_asked_and_figures_are_still_shown(
    spec: dict[str, Any],
) -> None:
    stage = Stage()
    stage.cluster.edit(spec)
    await stage.tick()
    assert stage.planner.asked == []
    assert not stage.source.asked[0][KEY].load_must_be_known
    stage.cluster.reconcile()
    assert stage.cluster.status.summary is not None
    assert stage.cluster.status.summary.time_to_first_token == "420/2000ms"
    assert stage.cluster.condition("SLOMet")[:2] == ("True", "ObjectiveMet")


async def test_a_decision_is_kept_in_full_and_can_be_read_back() -> None:
    stage = Stage()
    await stage.tick()
    (written,) = stage.writer.writes
    assert written["metadata"]["name"] == "chat-decisions"
    assert written["metadata"]["ownerReferences"][0]["uid"] == "uid-of-chat"
    (record,) = json.loads(written["data"][DECISIONS])
    assert (record["reason"], record["before"]["replicas"], record["shape"]["replicas"]) == (
        "QueueingAboveTarget",
        2,
        4,
    )
    assert observation_of(record) == stage.planner.asked[0][0]
    assert candidates_of(record)[0].prediction == PREDICTED


async def test_a_steady_service_is_not_written_at_every_look() -> None:
    stage = Stage()
    stage.planner.replicas = 2
    for _ in range(20):
        await stage.tick()
    assert len(stage.writer.writes) == 1


async def test_a_new_process_goes_on_with_what_was_kept() -> None:
    stage = Stage()
    await stage.tick()
    stage.advice.forget(KEY)
    stage.start()
    stage.cluster.pods.clear()
    await stage.tick()
    (start,) = stage.planner.asked[-1][0].start_times
    assert start.starts == 2
    assert stage.planner.asked[-1][1] == stage.planner.asked[0][1]


async def test_state_that_cannot_be_read_is_forgotten() -> None:
    stage = Stage()
    await stage.tick()
    stage.writer.children[("ConfigMap", "chat-decisions")]["data"] = {STATE: "[[", DECISIONS: "7"}
    stage.start()
    await stage.tick()
    assert stage.planner.asked[-1][1] == PlannerState()


async def test_a_planner_that_breaks_leaves_the_shape() -> None:
    stage = Stage()

    def broken(*_: Any) -> Decision:
        raise ZeroDivisionError

    stage.planner.decide = broken  # type: ignore[method-assign, assignment]
    with capture_logs() as logs:
        await stage.tick()
    assert [one["event"] for one in logs] == ["a decision broke"]
    stage.cluster.settle()
    assert list(stage.cluster.variants().values()) == [2]


def test_the_names_and_labels_of_the_metrics_are_these() -> None:
    families = {one.name: one for one in DecisionMetrics().collect()}
    assert {name: type(one).__name__ for name, one in families.items()} == {
        "paceline_decision_looks": "CounterMetricFamily",
        "paceline_decision_replicas": "GaugeMetricFamily",
        "paceline_decision_tensor_parallel_size": "GaugeMetricFamily",
        "paceline_decision_latency_seconds": "GaugeMetricFamily",
        "paceline_decision_attainment_ratio": "GaugeMetricFamily",
        "paceline_decision_confidence_ratio": "GaugeMetricFamily",
        "paceline_decision_error_budget_remaining_ratio": "GaugeMetricFamily",
        "paceline_decision_burn_rate_ratio": "GaugeMetricFamily",
        "paceline_decision_gpu_seconds": "CounterMetricFamily",
        "paceline_decision_stragglers": "CounterMetricFamily",
    }


async def test_figures_of_a_service_go_with_it() -> None:
    stage = Stage()
    await stage.tick()
    await stage.tick()
    text = stage.scrape()
    labels = 'namespace="team-a",service="chat"'
    for line in (
        f'paceline_decision_looks_total{{mode="Auto",{labels},reason="QueueingAboveTarget"}} 2.0',
        f'paceline_decision_replicas{{mode="Auto",{labels}}} 4.0',
        f'paceline_decision_latency_seconds{{figure="ttft",{labels},quantile="0.99",source="measured"}} 0.42',
        f'paceline_decision_latency_seconds{{figure="ttft",{labels},quantile="0.99",source="predicted"}} 0.3',
        f'paceline_decision_attainment_ratio{{{labels},source="predicted"}} 0.995',
    ):
        name, _, rest = line.partition("{")
        found = [
            one
            for one in text.splitlines()
            if one.startswith(name + "{") and one.rpartition(" ")[2] == rest.rpartition(" ")[2]
        ]
        assert found, line
    stage.cache.remove(INFERENCE_SERVICE, namespace="team-a", name="chat", uid="uid-of-chat", version=9)
    await stage.loop.tick()
    assert 'service="chat"' not in stage.scrape()


async def test_metrics_that_are_away_reach_the_conditions() -> None:
    stage = Stage()
    away = Availability(available=False, reason="PrometheusUnreachable", message="No answer from it.")
    stage.source.answer = metrics(availability=away, source="None", attainment=Figure(value=None))
    await stage.tick()
    stage.cluster.settle()
    assert list(stage.cluster.variants().values()) == [2]
    assert stage.cluster.condition("MetricsAvailable")[:2] == ("False", "PrometheusUnreachable")
