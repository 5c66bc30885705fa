"""`paceline_decision_*`: what the loop decided, predicted, measured and saved, for Prometheus.

One collector that is asked at every scrape and forgets a service with it: a gauge per label would show a
deleted service for ever. Unknown figures have no sample. Names are pinned by a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from paceline.controller.work_queue import ServiceKey
from paceline.fleet.straggler import Straggler
from paceline.planner import Decision, Reason

REASONS: tuple[str, ...] = get_args(Reason)
_SERVICE = ("namespace", "service")
_QUANTILES = ("0.5", "0.95", "0.99")


@dataclass(slots=True)
class ServiceFigures:
    """Of one service, as of the last look."""

    mode: str = "Manual"
    decision: Decision | None = None
    decisions: dict[str, int] = field(default_factory=dict)
    """By reason."""

    measured: dict[tuple[str, str], float] = field(default_factory=dict)
    """(ttft or tpot, quantile) -> seconds"""

    attainment: float | None = None
    budget_remaining: float | None = None
    burn_rates: dict[str, float] = field(default_factory=dict)
    gpu_seconds: float = 0.0
    saved_gpu_seconds: float = 0.0
    peak_gpus: int = 0
    """Most that the service has held since this was first counted: what a static choice would need."""

    stragglers: int = 0
    straggler: str | None = None
    """UID of the last one."""

    def count(self, decision: Decision) -> None:
        self.decision = decision
        self.decisions[decision.reason] = self.decisions.get(decision.reason, 0) + 1

    def find(self, straggler: Straggler) -> None:
        """A pod counts once, however many looks find it."""
        self.stragglers += straggler.uid != self.straggler
        self.straggler = straggler.uid

    def spend(self, gpus: int, seconds: float) -> None:
        self.peak_gpus = max(self.peak_gpus, gpus)
        self.gpu_seconds += gpus * seconds
        self.saved_gpu_seconds += (self.peak_gpus - gpus) * seconds


class DecisionMetrics(Collector):
    def __init__(self) -> None:
        self._services: dict[ServiceKey, ServiceFigures] = {}

    def of(self, key: ServiceKey) -> ServiceFigures:
        return self._services.setdefault(key, ServiceFigures())

    def keep_only(self, keys: set[ServiceKey]) -> None:
        for gone in self._services.keys() - keys:
            del self._services[gone]

    def collect(self) -> Iterator[Metric]:
        looks = CounterMetricFamily(
            "paceline_decision_looks",
            "Looks at a service by what was decided; most of them decide to stay.",
            labels=(*_SERVICE, "mode", "reason"),
        )
        replicas = GaugeMetricFamily(
            "paceline_decision_replicas", "Replicas decided on.", labels=(*_SERVICE, "mode")
        )
        size = GaugeMetricFamily(
            "paceline_decision_tensor_parallel_size",
            "Tensor-parallel size decided on.",
            labels=(*_SERVICE, "mode"),
        )
        latency = GaugeMetricFamily(
            "paceline_decision_latency_seconds",
            "Latency that the planner predicts for the shape decided on, and the one that is measured.",
            labels=(*_SERVICE, "figure", "quantile", "source"),
        )
        attainment = GaugeMetricFamily(
            "paceline_decision_attainment_ratio",
            "Share of requests that meet all their targets, predicted and measured.",
            labels=(*_SERVICE, "source"),
        )
        confidence = GaugeMetricFamily(
            "paceline_decision_confidence_ratio",
            "How far the planner's model agrees with the service's own measurements.",
            labels=_SERVICE,
        )
        budget = GaugeMetricFamily(
            "paceline_decision_error_budget_remaining_ratio",
            "What is left of the error budget of the SLO's window.",
            labels=_SERVICE,
        )
        burn = GaugeMetricFamily(
            "paceline_decision_burn_rate_ratio",
            "How fast the error budget is spent; 1 spends it in the window.",
            labels=(*_SERVICE, "window_seconds"),
        )
        gpus = CounterMetricFamily(
            "paceline_decision_gpu_seconds",
            "GPU time held, and saved against a service that always held its largest shape so far.",
            labels=(*_SERVICE, "kind"),
        )
        stragglers = CounterMetricFamily(
            "paceline_decision_stragglers",
            "Engine pods that were found much slower than their peers.",
            labels=_SERVICE,
        )
        for key, one in self._services.items():
            names = (key.namespace, key.name)
            stragglers.add_metric(names, one.stragglers)
            for reason, count in one.decisions.items():
                looks.add_metric((*names, one.mode, reason), count)
            gpus.add_metric((*names, "held"), one.gpu_seconds)
            gpus.add_metric((*names, "saved"), one.saved_gpu_seconds)
            for (figure, quantile), value in one.measured.items():
                latency.add_metric((*names, figure, quantile, "measured"), value)
            if one.attainment is not None:
                attainment.add_metric((*names, "measured"), one.attainment)
            if one.budget_remaining is not None:
                budget.add_metric(names, one.budget_remaining)
            for window, value in one.burn_rates.items():
                burn.add_metric((*names, window), value)
            if (decision := one.decision) is None:
                continue
            replicas.add_metric((*names, one.mode), decision.shape.replicas)
            size.add_metric((*names, one.mode), decision.shape.tensor_parallel_size)
            confidence.add_metric(names, decision.confidence)
            if (predicted := decision.predicted) is None:
                continue
            attainment.add_metric((*names, "predicted"), predicted.attainment)
            for figure, values in (
                ("ttft", (predicted.ttft_p50_s, predicted.ttft_p95_s, predicted.ttft_p99_s)),
                ("tpot", (predicted.tpot_p50_s, predicted.tpot_p95_s, predicted.tpot_p99_s)),
            ):
                for quantile, value in zip(_QUANTILES, values, strict=True):
                    latency.add_metric((*names, figure, quantile, "predicted"), value)
        yield from (looks, replicas, size, latency, attainment, confidence, budget, burn, gpus, stragglers)
