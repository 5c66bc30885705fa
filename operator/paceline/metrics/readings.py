"""What was heard about one service in one tick, before anybody asks whether to believe it.

Filled from Prometheus' answers or from the pods' own pages, in the same form; `measure` turns it into figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

PodFigure = Literal[
    "age_s",
    "down",
    "running",
    "waiting",
    "kv_cache_usage",
    "kv_cache_tokens",
    "held",
    "in_flight",
    "itl_sum",
    "itl_count",
]
"""The last two are rates over the window, of the pod alone; Prometheus gives them, the pods' own pages do not."""

Rate = Literal[
    "arrivals",
    "client_errors",
    "unserved",
    "good",
    "judged",
    "counted",
    "in_flight_change",
    "prompt_tokens",
    "cached_prompt_tokens",
    "output_tokens",
    "preemptions",
    "gate_ttft_sum",
    "gate_ttft_count",
    "ttft_sum",
    "ttft_count",
    "itl_sum",
    "itl_count",
    "tpot_sum",
    "tpot_count",
    "prompt_length_sum",
    "prompt_length_count",
    "output_length_sum",
    "output_length_count",
]
"""Each per second over the window. `judged`: the denominator of attainment as engines count it; `counted`:
every request that ended in an engine."""

Histogram = Literal["gate_ttft", "ttft", "itl", "tpot", "prompt_length", "output_length"]

SUM_AND_COUNT: Final[dict[Histogram, tuple[Rate, Rate]]] = {
    "gate_ttft": ("gate_ttft_sum", "gate_ttft_count"),
    "ttft": ("ttft_sum", "ttft_count"),
    "itl": ("itl_sum", "itl_count"),
    "tpot": ("tpot_sum", "tpot_count"),
    "prompt_length": ("prompt_length_sum", "prompt_length_count"),
    "output_length": ("output_length_sum", "output_length_count"),
}
"""From one answer, so that a mean is exact: buckets come by another query, and a scrape may lie between."""

Buckets = dict[float, float]
"""Upper edge -> entries a second at or below it."""

Labels = Collection[int | None]


@dataclass(slots=True)
class Readings:
    pods: dict[str, dict[PodFigure, float]] = field(default_factory=dict)
    """By the name of the pod; engines and gates."""

    rates: dict[tuple[Rate, int | None], float] = field(default_factory=dict)
    """By name and the tensor-parallel size in the label; None is the gate's."""

    histograms: dict[tuple[Histogram, int | None], Buckets] = field(default_factory=dict)

    def rate(self, name: Rate, labels: Labels | None = None) -> float | None:
        """Over these labels together, or over all; None where there is none at all."""
        if labels is not None:
            found = [self.rates[name, label] for label in labels if (name, label) in self.rates]
        else:
            found = [value for (rate, _), value in self.rates.items() if rate == name]
        return sum(found) if found else None

    def histogram(self, name: Histogram, labels: Labels | None = None) -> Buckets:
        """The same."""
        merged: Buckets = {}
        for (histogram, label), buckets in self.histograms.items():
            if histogram == name and (labels is None or label in labels):
                for edge, value in buckets.items():
                    merged[edge] = merged.get(edge, 0.0) + value
        return merged

    def age_s(self, pod: str) -> float | None:
        return self.pods.get(pod, _NOTHING).get("age_s")


_NOTHING: Mapping[PodFigure, float] = {}
