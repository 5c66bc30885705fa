"""What one tick of the decision loop takes of the operator, with many services in Auto on many nodes.

    python -m benchmarks.decision_tick [--services 1000] [--nodes 1000] [--ticks 8]

The loop, the looks at the cache and the planners are the operator's. API server and Prometheus are not there: objects are
copies of those of one simulated service, metrics are made up and change a little with every tick, and what would be
written is thrown away. CPU time of this process; `benchmarks.operator_scale` has the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import structlog

from benchmarks.auto_service import REPLICAS, SPEC
from benchmarks.usage import Usage
from paceline.controller.advice_book import AdviceBook
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.conflict_book import ConflictBook
from paceline.controller.decision_loop import DecisionLoop
from paceline.controller.decision_metrics import DecisionMetrics
from paceline.controller.decision_store import DecisionStore
from paceline.controller.facts import Lookup
from paceline.controller.instruments import Instruments
from paceline.controller.planners import Planners
from paceline.controller.reconciler import Reconciler
from paceline.controller.resources import CHILD_OF_KIND, INFERENCE_SERVICE, NODE, POD
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Observed
from paceline.metrics import Availability, EngineFigures, ServiceFacts, ServiceMetrics
from paceline.planner import Figure, Lengths, Quantiles, Traffic
from tests.unit.fleet.services import SETTINGS
from tests.unit.fleet.simulated_cluster import Cluster

EDGES = tuple(float(2**power) for power in range(4, 15))


class Outside:
    """Stands for everything beyond the loop: facts, words of pods, quotas, metrics, and whoever writes."""

    def __init__(self, cache: ClusterCache) -> None:
        self._cache = cache
        self._random = random.Random(0)

    def lookup(self, *_: object) -> Lookup:
        return Lookup()

    def of(self, *of_what: object) -> Any:
        """Of a pod (its key and it): no word. Of a namespace: no quotas."""
        return None if len(of_what) == 2 else ()

    async def read(self) -> None:
        """There are no quotas."""

    async def apply(self, *_: object, **__: object) -> None:
        """Thrown away."""

    def by_node(self) -> Mapping[str, Mapping[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for key in self._cache.services():
            for pod in self._cache.pods(key):
                held = found.setdefault(pod.node or "", {"nvidia.com/gpu": 0.0})
                held["nvidia.com/gpu"] += pod.gpus
        return found

    async def collect(self, services: Mapping[ServiceKey, ServiceFacts]) -> dict[ServiceKey, ServiceMetrics]:
        return {key: self._metrics() for key in services}

    def _metrics(self) -> ServiceMetrics:
        rate = 6.0 * self._random.uniform(0.9, 1.1)
        lengths = (
            Lengths(upper_tokens=EDGES, counts=tuple(rate * 5.0 for _ in EDGES), mean_tokens=mean)
            for mean in (900.0, 250.0)
        )
        busy = rate * 2.0
        figure = Figure(value=0.0075 * self._random.uniform(0.95, 1.05), age_s=5.0, samples=rate * 60)
        return ServiceMetrics(
            availability=Availability(available=True, reason="Measured", message="All pods were heard."),
            source="Prometheus",
            traffic=Traffic(
                requests_per_s=Figure(value=rate, age_s=5.0, samples=rate * 60),
                window_s=60.0,
                prompt=next(lengths),
                output=next(lengths),
            ),
            attainment=Figure(value=0.999, samples=rate * 60),
            engines={
                1: EngineFigures(
                    running=Figure(value=busy),
                    waiting=Figure(value=0.0),
                    inter_token_latency=Quantiles(mean_s=figure, p50_s=figure, p95_s=figure, p99_s=figure),
                    kv_cache_tokens=131_072,
                )
            },
        )


def filled(cache: ClusterCache, *, services: int, nodes: int) -> None:
    """Copies of one simulated service under other names, their pods spread over the nodes."""
    cluster = Cluster(SPEC, name="service-0")
    cluster.settle()
    cluster.reconcile()
    for number in range(nodes):
        name = f"node-{number}"
        cluster.add_node(name)
        one = cluster.nodes[name]
        one["metadata"] |= {"uid": name, "resourceVersion": "1"}
        one["metadata"]["labels"]["nvidia.com/gpu.product"] = "NVIDIA-H200"
        cache.put(NODE, one)
    places = iter(range(10**9))
    for number in range(services):
        for resource, raw in _objects(cluster):
            text = json.dumps(raw).replace("service-0", f"service-{number}")
            copy = json.loads(text.replace('"uid": "', f'"uid": "{number}-'))
            copy["metadata"] = {"resourceVersion": "1", "namespace": "team-a", **copy["metadata"]}
            if resource is POD:
                copy["spec"]["nodeName"] = f"node-{next(places) % nodes}"
            cache.put(resource, copy)


def _objects(cluster: Cluster) -> Iterator[tuple[Any, dict[str, Any]]]:
    yield INFERENCE_SERVICE, cluster.service
    for (kind, _), child in cluster.children.items():
        yield CHILD_OF_KIND[kind], child
    for pod in cluster.pods.values():
        yield POD, pod


class Looks:
    """The reconciler's, at a time that passes 15 s a tick."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self.passed_s = 0.0

    def look(self, key: ServiceKey) -> Observed | None:
        found = self._reconciler.look(key)
        return replace(found, now_s=found.now_s + self.passed_s) if found is not None else None


def loop_of(cache: ClusterCache) -> tuple[DecisionLoop, Looks]:
    outside, advice = Outside(cache), AdviceBook()
    unused = cast(Any, outside)
    reconciler = Reconciler(
        cache=cache,
        conflicts=ConflictBook(),
        writer=unused,
        status_writer=unused,
        events=unused,
        facts=unused,
        pod_infos=unused,
        advice=advice,
        instruments=Instruments(),
        settings=lambda: SETTINGS,
        now_s=time.time,
    )
    looks = Looks(reconciler)
    loop = DecisionLoop(
        cache=cache,
        looks=looks,
        source=unused,
        gates=unused,
        planners=Planners(),
        requests=unused,
        quotas=unused,
        advice=advice,
        store=DecisionStore(unused, cache=cache),
        metrics=DecisionMetrics(),
        instruments=Instruments(),
        wanted=lambda *_: None,
        period_s=15,
        gpu_budget=None,
    )
    return loop, looks


async def measure(asked: argparse.Namespace) -> None:
    cache = ClusterCache()
    filled(cache, services=asked.services, nodes=asked.nodes)
    loop, looks = loop_of(cache)
    before_mib = Usage.of(os.getpid()).resident_mib
    took_s = []
    for _ in range(asked.ticks):
        began_s = time.process_time()
        await loop.tick()
        took_s.append(time.process_time() - began_s)
        looks.passed_s += 15
    print(f"{asked.services} services with {REPLICAS} engines each, {asked.nodes} nodes; CPU time")
    print(f"the first tick (planners are made)    {took_s[0]:.2f} s")
    print(
        f"a later tick                          {statistics.median(took_s[1:]):.2f} s (most {max(took_s[1:]):.2f})"
    )
    print(f"memory taken by the ticks             {Usage.of(os.getpid()).resident_mib - before_mib:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--ticks", type=int, default=8)
    # The log would be a line a decision.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
