"""A service whose metrics are all there, to take something away from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paceline.metrics import Rules
from paceline.metrics.readings import Readings
from paceline_core import Layout

NOW_S = 1_000_000.0
RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class APod:
    name: str
    component: str = "engine"
    tensor_parallel_size: int | None = 1
    ip: str | None = "127.0.0.1"
    created_at_s: float = NOW_S - 4000
    ready: bool = True
    ready_since_s: float | None = NOW_S - 3600
    deleting: bool = False
    finished: bool = False
    layout: Layout | None = None
    """None: that of its template."""
    changed_at_s: float | None = None
    silent: bool = False
    """It was told another layout and does not say which it has."""

    @property
    def serves_in(self) -> Layout | None:
        if self.silent or self.tensor_parallel_size is None:
            return None
        return self.layout or Layout(self.tensor_parallel_size)


def gate(name: str, **changes: object) -> APod:
    return APod(name=name, component="router", tensor_parallel_size=None, **changes)  # type: ignore[arg-type]


def all_well(
    *, engines: tuple[APod, ...], gates: tuple[APod, ...], requests_per_s: float = 10.0, age_s: float = 2.0
) -> Readings:
    """Every request good, 100 prompt tokens and 20 output tokens each, TTFT between 0.1 and 0.2 s, and each engine
    20 tokens a second, 30 ms apart."""
    readings = Readings()
    for pod in gates:
        readings.pods[pod.name] = {"age_s": age_s, "held": 0.0, "in_flight": 10.0}
    for pod in engines:
        readings.pods[pod.name] = {
            "age_s": age_s,
            "running": 4.0,
            "waiting": 1.0,
            "kv_cache_usage": 0.25,
            "kv_cache_tokens": 160_000.0,
            "itl_sum": 0.6,
            "itl_count": 20.0,
        }
    rates = readings.rates
    rates["arrivals", None] = requests_per_s
    rates["client_errors", None] = 0.0
    rates["unserved", None] = 0.0
    rates["gate_ttft_sum", None] = 0.15 * requests_per_s
    rates["gate_ttft_count", None] = requests_per_s
    readings.histograms["gate_ttft", None] = steps(requests_per_s, below=0.1, above=0.2)
    sizes = {pod.tensor_parallel_size for pod in engines}
    for size in sizes:
        part = requests_per_s / len(sizes)
        for name in ("good", "judged", "counted"):
            rates[name, size] = part
        rates["in_flight_change", size] = 0.0
        rates["prompt_tokens", size] = 100 * part
        rates["cached_prompt_tokens", size] = 25 * part
        rates["output_tokens", size] = 20 * part
        rates["preemptions", size] = 0.0
        for name, mean in (("ttft", 0.15), ("itl", 0.03), ("tpot", 0.03)):
            rates[f"{name}_sum", size] = mean * part  # type: ignore[index]
            rates[f"{name}_count", size] = part  # type: ignore[index]
            readings.histograms[name, size] = steps(part, below=mean / 2, above=mean * 2)  # type: ignore[index]
        rates["prompt_length_sum", size] = 100 * part
        rates["output_length_sum", size] = 20 * part
        rates["prompt_length_count", size] = rates["output_length_count", size] = part
    readings.histograms["prompt_length", None] = steps(requests_per_s, below=64, above=128)
    readings.histograms["output_length", None] = steps(requests_per_s, below=16, above=32)
    return readings


def steps(entries_per_s: float, *, below: float, above: float) -> dict[float, float]:
    """All entries between two edges."""
    return {below: 0.0, above: entries_per_s, math.inf: entries_per_s}
