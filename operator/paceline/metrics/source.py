"""The controller's way to the metrics of all services: one `collect` a tick."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import structlog

from paceline.metrics.answers import Answers
from paceline.metrics.direct import DirectReader
from paceline.metrics.errors import MetricsError, Unreachable
from paceline.metrics.facts import ServiceFacts, ServiceKey
from paceline.metrics.measure import measure, unknown
from paceline.metrics.prometheus import Answer, Prometheus
from paceline.metrics.queries import query_set, scope
from paceline.metrics.readings import Readings
from paceline.metrics.service_metrics import ServiceMetrics
from paceline.metrics.settings import MetricsSettings
from paceline.metrics.sight import Problem

log = structlog.get_logger()

K = TypeVar("K", bound=ServiceKey)

_NOT_CONFIGURED: Final = Problem(
    reason="NotConfigured",
    message="No Prometheus is configured: set prometheus.url of the chart, or --prometheus-url.",
)


class MetricsSource:
    """Belongs to one event loop. Remembers how long metrics have been away, and nothing that safety needs."""

    def __init__(
        self,
        settings: MetricsSettings,
        *,
        clock: Callable[[], float] = time.time,
        direct: DirectReader | None = None,
    ) -> None:
        """`clock` tells Unix time; `direct` is for tests, whose pods are not on the usual ports."""
        self._settings = settings
        self._clock = clock
        self._prometheus = (
            None if settings.prometheus is None else Prometheus(settings.prometheus, clock=clock)
        )
        self._direct = direct or DirectReader(settings)
        self._away_since_s: dict[tuple[str, str], float] = {}
        """By namespace and name; of the running loop's clock."""

        self._last_rates: dict[tuple[str, str], float] = {}
        """Requests a second when the load was last known."""

        self._was_unreachable = False

    async def collect(self, services: Mapping[K, ServiceFacts]) -> dict[K, ServiceMetrics]:
        """The metrics of every service that is asked for; it does not raise for what Prometheus or pods do.

        A handful of queries, however many services there are. Takes `tick_timeout_s` at the most, and as
        much again where pods have to be asked.
        """
        if not services:
            return {}
        measured = await self._ask_prometheus(services)
        self._remember(measured)
        lasting = self._away_for_long(measured)
        wanted = {key: services[key] for key in lasting if services[key].load_must_be_known}
        if wanted:
            measured |= await self._direct.collect(
                wanted, instead_of=measured, last_rates=self._last_rates, now_s=self._clock()
            )
        self._direct.keep_only((key.namespace, key.name) for key in wanted)
        return measured

    async def close(self) -> None:
        """Let go of connections."""
        if self._prometheus is not None:
            await self._prometheus.close()
        await self._direct.close()

    async def _ask_prometheus(self, services: Mapping[K, ServiceFacts]) -> dict[K, ServiceMetrics]:
        settings = self._settings
        if settings.prometheus is None or self._prometheus is None:
            return dict.fromkeys(services, unknown(_NOT_CONFIGURED, rules=settings.rules))
        where = scope(services.keys(), matchers=settings.prometheus.matchers)
        queries = query_set(where, window_s=settings.rules.window_s)
        asked = await asyncio.gather(
            *(
                self._query(query)
                for query in (queries.pods, queries.rates, queries.latencies, queries.lengths)
            )
        )
        self._log_change([one for one in asked if isinstance(one, MetricsError)])
        pods, rates, latencies, lengths = asked
        for essential in (pods, rates):
            if isinstance(essential, MetricsError):
                return dict.fromkeys(services, unknown(_problem(essential), rules=settings.rules))
        answers, skews_s = Answers(), [0.0]
        problems: list[Problem] = []
        for answer, add in (
            (pods, answers.add_pods),
            (rates, answers.add_rates),
            (latencies, answers.add_buckets),
            (lengths, answers.add_buckets),
        ):
            if isinstance(answer, MetricsError):
                problems.append(_problem(answer))
            else:
                add(answer.rows)
                skews_s.append(answer.skew_s)
        now_s, skew_s = self._clock(), max(skews_s, key=abs)
        return {
            key: measure(
                answers.of(key.namespace, key.name) or Readings(),
                facts,
                rules=settings.rules,
                now_s=now_s,
                skew_s=skew_s,
                problems=problems,
            )
            for key, facts in services.items()
        }

    async def _query(self, query: str) -> Answer | MetricsError:
        assert self._prometheus is not None
        try:
            async with asyncio.timeout(self._settings.tick_timeout_s):
                return await self._prometheus.query(query)
        except TimeoutError:
            assert self._settings.prometheus is not None
            return Unreachable(
                f"{self._settings.prometheus.url} did not answer within {self._settings.tick_timeout_s:g} s"
            )
        except MetricsError as error:
            return error

    def _remember(self, measured: Mapping[K, ServiceMetrics]) -> None:
        names = {(key.namespace, key.name): metrics for key, metrics in measured.items()}
        known = {name: metrics.traffic.requests_per_s.fresh for name, metrics in names.items()}
        self._last_rates = {name: rate for name, rate in self._last_rates.items() if name in names} | {
            name: rate for name, rate in known.items() if rate is not None
        }

    def _away_for_long(self, measured: Mapping[K, ServiceMetrics]) -> list[K]:
        """Services whose metrics have been unavailable for as long as is waited before pods are asked."""
        now_s = asyncio.get_running_loop().time()
        away = {
            key: self._away_since_s.get((key.namespace, key.name), now_s)
            for key, metrics in measured.items()
            if metrics.availability.available is False
        }
        self._away_since_s = {(key.namespace, key.name): since_s for key, since_s in away.items()}
        return [key for key, since_s in away.items() if now_s - since_s >= self._settings.direct_after_s]

    def _log_change(self, errors: list[MetricsError]) -> None:
        if bool(errors) == self._was_unreachable:
            return
        self._was_unreachable = bool(errors)
        if errors:
            log.warning("prometheus does not answer", reason=errors[0].reason, error=str(errors[0]))
        else:
            log.info("prometheus answers again")


def _problem(error: MetricsError) -> Problem:
    return Problem(reason=error.reason, message=f"Prometheus: {error}.")
