"""Paceline's series on the metrics page of the server process.

A collector, read at each scrape from the live state: nothing is updated on the path of a request but the
counts themselves. Registered by `endpoints` in the registry that vLLM exports, and by the emulated engine
in its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from paceline_runtime.vllm_plugin.lifecycle import Phase
from paceline_runtime.vllm_plugin.serving import Serving


class PacelineCollector(Collector):
    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def describe(self) -> list[Metric]:
        return []  # collected on demand: asking would need a running server

    def collect(self) -> Iterator[Metric]:
        serving = self._serving
        requests = CounterMetricFamily(
            "paceline_requests",
            "Requests by latency class and outcome, each counted once, when its body has ended.",
            labels=("latency_class", "outcome"),
        )
        for (latency_class, outcome), count in serving.ledger.counts().items():
            requests.add_metric((latency_class, outcome.value), count)
        yield requests
        yield GaugeMetricFamily(
            "paceline_requests_in_flight",
            "Requests whose body has not ended.",
            value=serving.lifecycle.in_flight,
        )
        stages = GaugeMetricFamily(
            "paceline_startup_stage_seconds",
            "Time of each stage of the start; ready is the whole, from the launcher's start.",
            labels=("stage",),
        )
        for stage, seconds in serving.stages.items():
            stages.add_metric((stage,), seconds)
        yield stages
        phases = GaugeMetricFamily("paceline_phase", "1 for the phase the pod is in.", labels=("phase",))
        for phase in Phase:
            phases.add_metric((phase.value,), float(phase is serving.lifecycle.phase))
        yield phases
        layout = GaugeMetricFamily(
            "paceline_layout_info",
            "How this pod divides its GPUs.",
            labels=("tensor_parallel_size", "data_parallel_size"),
        )
        settings = serving.settings
        sizes = (settings.tensor_parallel_size, settings.data_parallel_size)
        layout.add_metric(tuple(map(str, sizes)), 1)
        yield layout
        yield GaugeMetricFamily(
            "paceline_emulated",
            "1 if no model computes the answers.",
            value=float(serving.settings.emulated),
        )
        yield GaugeMetricFamily(
            "paceline_engine_step_age_seconds",
            "Time that the engine has had work and made no step; 0 while it has none.",
            value=serving.heartbeat.age_s(),
        )
