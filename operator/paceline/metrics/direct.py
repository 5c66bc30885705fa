"""Asks gates and engines themselves when Prometheus has been away for long.

Gates first: their pages are small and say how much comes in. The engines of a service are asked too once its
load is above what it last was, or somebody waits: then the next step needs them. Called by `source`; a pod
that does not answer is missing, as it is for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from paceline.metrics.facts import PodView, ServiceFacts, ServiceKey
from paceline.metrics.history import PodHistory
from paceline.metrics.measure import measure
from paceline.metrics.pod_pages import PodPages
from paceline.metrics.readings import Readings
from paceline.metrics.service_metrics import ServiceMetrics
from paceline.metrics.settings import MetricsSettings
from paceline.metrics.sight import Problem

K = TypeVar("K", bound=ServiceKey)

LOAD_ROSE_BY: Final = 1.1
"""From here on the engines are asked too."""


class DirectReader:
    """Belongs to one event loop. Remembers pages as long as a service is asked about."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._pages = PodPages(connections=settings.direct_connections, timeout_s=settings.direct_timeout_s)
        self._histories: dict[tuple[str, str], dict[str, PodHistory]] = {}
        """By namespace and name of the service, then by pod."""

        self._asking_engines: set[tuple[str, str]] = set()

    async def collect(
        self,
        services: Mapping[K, ServiceFacts],
        *,
        instead_of: Mapping[K, ServiceMetrics],
        last_rates: Mapping[tuple[str, str], float],
        now_s: float,
    ) -> dict[K, ServiceMetrics]:
        """What the pods of these services say; `instead_of` has what Prometheus did, and why it will not do.

        `last_rates`: requests a second when the load was last known, by namespace and name.
        """
        await self._look(
            (key, pod)
            for key, facts in services.items()
            for pod in facts.pods
            if pod.component == "router" or _name(key) in self._asking_engines
        )
        found = {
            key: self._measured(key, facts, instead_of=instead_of[key], now_s=now_s)
            for key, facts in services.items()
        }
        for key, metrics in found.items():
            if _load_rose(metrics, last_rates.get(_name(key))):
                self._asking_engines.add(_name(key))
        return found

    def keep_only(self, names: Iterable[tuple[str, str]]) -> None:
        """Forget every other service: Prometheus has it again."""
        kept = set(names)
        self._histories = {name: one for name, one in self._histories.items() if name in kept}
        self._asking_engines &= kept

    async def close(self) -> None:
        await self._pages.close()

    def _measured(
        self, key: K, facts: ServiceFacts, *, instead_of: ServiceMetrics, now_s: float
    ) -> ServiceMetrics:
        readings = Readings()
        present = {pod.name for pod in facts.pods}
        histories = {
            name: one for name, one in self._histories.get(_name(key), {}).items() if name in present
        }
        self._histories[_name(key)] = histories
        at_s = asyncio.get_running_loop().time()
        for pod in facts.pods:
            if pod.name in histories:
                histories[pod.name].add_to(readings, pod=pod.name, size=pod.tensor_parallel_size, now_s=at_s)
        before = instead_of.availability
        return measure(
            readings,
            facts,
            rules=self._settings.rules,
            now_s=now_s,
            source="Pods",
            engines_asked=_name(key) in self._asking_engines,
            problems=[
                Problem(
                    reason=before.reason, message=f"{before.message} The pods are asked directly meanwhile."
                )
            ],
        )

    async def _look(self, wanted: Iterable[tuple[K, PodView]]) -> None:
        looks = [
            self._look_at(_name(key), pod)
            for key, pod in wanted
            if pod.ip is not None and pod.ready and not pod.deleting
        ]
        # What has not been looked at by then is missing, like a pod that does not answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.tick_timeout_s):
                await asyncio.gather(*looks)

    async def _look_at(self, service: tuple[str, str], pod: PodView) -> None:
        page = await self._pages.read(pod)
        if page is None:
            return
        histories = self._histories.setdefault(service, {})
        history = histories.setdefault(pod.name, PodHistory(window_s=self._settings.rules.window_s))
        history.add(asyncio.get_running_loop().time(), page)


def _load_rose(metrics: ServiceMetrics, last_rate: float | None) -> bool:
    rate = metrics.traffic.requests_per_s.fresh
    held = metrics.traffic.held_requests.fresh
    if held:
        return True
    return rate is not None and (last_rate is None or rate > LOAD_ROSE_BY * last_rate)


def _name(key: ServiceKey) -> tuple[str, str]:
    return key.namespace, key.name
