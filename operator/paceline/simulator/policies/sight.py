"""What a rival sees: the last scrapes of the engines' own metrics and what Prometheus makes of them.

The one seam between the rivals' rules and the simulator. Every figure is as old and as coarse as the scrape
and vLLM's buckets make it; None is no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSample:
    """Gauges of one ready replica, as last scraped."""

    running: float
    waiting: float
    kv_usage: float
    """0 to 1."""


class Sight(Protocol):
    @property
    def now_s(self) -> float: ...

    @property
    def asked(self) -> int:
        """Replicas that were last asked for."""

    @property
    def ready(self) -> int: ...

    @property
    def held(self) -> float:
        """Requests that wait outside because no replica is ready."""

    def samples(self) -> Sequence[ReplicaSample]:
        """Of the ready replicas that answered lately; empty when the metrics are gone."""

    def requests_per_s(self, window_s: float) -> float | None: ...

    def prompt_tokens(self, window_s: float) -> float | None:
        """Mean of a request."""

    def output_tokens(self, window_s: float) -> float | None:
        """Mean of a request that ended."""

    def ttft_s(self, quantile: float, window_s: float) -> float | None:
        """`histogram_quantile` over vLLM's buckets."""

    def tpot_s(self, quantile: float, window_s: float) -> float | None: ...

    def mean_ttft_s(self, window_s: float) -> float | None: ...

    def mean_tpot_s(self, window_s: float) -> float | None: ...

    def mean_request_s(self, window_s: float) -> float | None:
        """From arrival to the last token."""


class Rival(Protocol):
    """An autoscaler of replicas. Asked every `period_s`."""

    @property
    def period_s(self) -> float: ...

    def replicas(self, sight: Sight) -> int:
        """How many it wants now; the caller keeps it within the bounds of the service."""
