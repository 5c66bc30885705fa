"""The operator's own metrics: what Prometheus reads on /metrics. Names are pinned by a test.

Every part of the controller counts here; nothing reads back. One registry per process, passed in, so that a
test has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class Instruments:
    def __init__(self) -> None:
        # A second series per counter with the time of its birth: nobody reads it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        self.reconcile_s = Histogram(
            "paceline_operator_reconcile_seconds",
            "One look at one service: observe, plan, write.",
            ["outcome"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.plan_s = Histogram(
            "paceline_operator_plan_seconds",
            "The pure part of a reconcile.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "paceline_operator_queue_depth", "Services that wait for a reconcile.", registry=self.registry
        )
        self.queue_wait_s = Histogram(
            "paceline_operator_queue_wait_seconds",
            "From the reason to the start of the reconcile.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60),
            registry=self.registry,
        )
        self.api_calls = Counter(
            "paceline_operator_api_requests_total",
            "Requests to the API server by kind, verb and outcome; watches are not counted.",
            ["kind", "verb", "outcome"],
            registry=self.registry,
        )
        self.writes = Counter(
            "paceline_operator_writes_total",
            "Writes that the API server accepted.",
            ["kind", "verb"],
            registry=self.registry,
        )
        self.conflicts = Counter(
            "paceline_operator_conflicts_total",
            "Server-side applies refused because another manager holds our fields.",
            ["kind", "manager"],
            registry=self.registry,
        )
        self.events_dropped = Counter(
            "paceline_operator_events_dropped_total",
            "Kubernetes events that could not be posted.",
            registry=self.registry,
        )
        self.watch_events = Counter(
            "paceline_operator_watch_events_total", "Watch events received.", ["kind"], registry=self.registry
        )
        self.decision_tick_s = Histogram(
            "paceline_operator_decision_tick_seconds",
            "One look at the metrics of all services, with the decisions that follow.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
            registry=self.registry,
        )
        self.leader = Gauge(
            "paceline_operator_leader", "1 in the process that holds the lease.", registry=self.registry
        )

    def count_services(self, by_ready: Callable[[], Mapping[str, int]]) -> None:
        """`by_ready` is asked at every scrape: status of the Ready condition -> number of services."""
        self.registry.register(_Services(by_ready))

    def add(self, collector: Collector) -> None:
        """Series that somebody else keeps, asked at every scrape."""
        self.registry.register(collector)


class _Services(Collector):
    def __init__(self, by_ready: Callable[[], Mapping[str, int]]) -> None:
        self._by_ready = by_ready

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "paceline_operator_services", "InferenceServices by their Ready condition.", labels=["ready"]
        )
        counts = self._by_ready()
        for status in ("True", "False", "Unknown"):
            family.add_metric([status], counts.get(status, 0))
        return [family]
