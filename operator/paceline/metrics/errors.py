"""Why Prometheus gave no answer. Raised by `prometheus`, turned into the condition MetricsAvailable by `source`.

MetricsError
 ├─ Unreachable    no connection, no answer in time, 429 or 5xx: may pass by itself
 └─ QueryFailed    an answer that says no, or that is none of Prometheus': somebody must change something
"""

from __future__ import annotations

from typing import ClassVar

from paceline.metrics.service_metrics import Reason


class MetricsError(Exception):
    """The message says what was asked where, and what to look at."""

    reason: ClassVar[Reason]


class Unreachable(MetricsError):
    reason = "PrometheusUnreachable"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """As long as the server asked us to wait."""


class QueryFailed(MetricsError):
    reason = "QueryFailed"
