"""What one tick learned about one service: figures with their trust, and whether metrics are to be had at all.

Made by `MetricsSource`; read by the controller (condition MetricsAvailable, status) and by `observe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from paceline.planner import MISSING, Figure, Quantiles, Traffic

UNMEASURED = Quantiles()

Source = Literal["Prometheus", "Pods", "None"]
"""Where the figures come from. `Pods`: asked directly, because Prometheus did not answer for long."""

Reason = Literal[
    "Measured",
    "NoPods",
    "Starting",
    "NotConfigured",
    "PrometheusUnreachable",
    "QueryFailed",
    "NotScraped",
    "PodsMissing",
    "TooFewScrapes",
    "Stale",
    "NotANumber",
    "ClockSkew",
    "Contradicted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """The condition MetricsAvailable."""

    available: bool | None
    """None: there is nothing to measure yet."""

    reason: Reason
    message: str
    """A sentence: what is wrong and what to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFigures:
    """Of the replicas of one tensor-parallel size; the fields are those of `planner.Group`."""

    running: Figure = MISSING
    waiting: Figure = MISSING
    kv_cache_usage: Figure = MISSING
    prefill_tokens_per_s: Figure = MISSING
    decode_tokens_per_s: Figure = MISSING
    preemptions_per_s: Figure = MISSING
    time_to_first_token: Quantiles = UNMEASURED
    inter_token_latency: Quantiles = UNMEASURED
    time_per_output_token: Quantiles = UNMEASURED
    kv_cache_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMetrics:
    availability: Availability
    source: Source
    traffic: Traffic
    attainment: Figure = MISSING
    engines: Mapping[int, EngineFigures] = field(default_factory=dict)
    """By tensor-parallel size."""

    pod_inter_token_latency: Mapping[str, Figure] = field(default_factory=dict)
    """Mean over the window of each engine pod, by its name; the samples are tokens."""

    client_time_to_first_token: Quantiles = UNMEASURED
    """As clients see it, at the gate: time in the hold included."""

    notes: tuple[str, ...] = ()
    """What was wrong, as a person reads it."""
