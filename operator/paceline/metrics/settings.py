"""How metrics are read: where Prometheus is, and the limits of trust. Filled once at start by the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """Any endpoint that speaks Prometheus' HTTP API: Prometheus, Thanos, Mimir, VictoriaMetrics.

    The files come from mounted Secrets and are read again when they change: tokens and certificates rotate.
    """

    url: str
    """With the prefix before `/api/v1`, if there is one."""

    bearer_token_file: Path | None = None
    ca_file: Path | None = None
    """None: the system's certificate authorities."""

    certificate_file: Path | None = None
    key_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Such as X-Scope-OrgID, by which Mimir tells tenants apart."""

    matchers: Mapping[str, str] = field(default_factory=dict)
    """Labels that every series of this cluster carries, where one endpoint has several clusters."""

    timeout_s: float = 8.0
    """Of one try."""

    attempts: int = 3
    """Tries of one query; only what may pass by itself (no connection, 429, 5xx) is tried again."""

    backoff_s: float = 0.25
    """Before the second try, doubled before each further one, with jitter."""

    answer_limit_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a figure is trusted."""

    window_s: float = 60.0
    """Of rates, quantiles and lengths. Twelve scrapes at the PodMonitor's default of 5 s."""

    stale_after_s: float = 45.0
    """Three missed scrapes at the commonest interval, 15 s."""

    scrape_grace_s: float = 45.0
    """How long a pod that became Ready may be missing from the answers: discovery and its first two
    scrapes."""

    max_skew_s: float = 30.0
    """Between Prometheus' clock and ours. Above it one of the two is wrong, and nobody can say which."""

    min_samples: int = 10
    """Requests behind a mean or a share; fewer are Thin."""

    contradiction_ratio: float = 1.5
    """Arrivals counted by gates and by engines may differ by this factor…"""

    contradiction_requests: float = 30.0
    """…and by this many requests of the window: scrapes of different pods are not of one moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    prometheus: PrometheusSettings | None
    """None: nowhere to ask. Every figure is Missing, and MetricsAvailable says so."""

    rules: Rules = Rules()
    tick_timeout_s: float = 15.0
    """For all queries of one tick together, tries again included."""

    direct_after_s: float = 30.0
    """How long the metrics of a service must have been away before its pods are asked directly."""

    direct_connections: int = 32
    """Pods that are asked at the same time."""

    direct_timeout_s: float = 2.0
