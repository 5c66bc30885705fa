"""At random moments a service gets more load than its replicas carry, and the time is taken until its Deployment has
been given another one."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from dataclasses import dataclass

from benchmarks.auto_service import REPLICAS
from benchmarks.operator_scale.api import Api, Raw
from tests.integration.controller.cluster import LABEL

CALM_PER_S, BUSY_PER_S = 6.0, 10.0
"""Requests a second of a service: three replicas carry the one and not the other."""

GIVE_UP_S = 180.0
BUSY_S = 60.0
"""For so long after the patch the load stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Of one change; None: no patch within `GIVE_UP_S`."""

    service: str
    from_change_s: float | None
    from_scrape_s: float | None
    """From the scrape that first had it."""


class Changes:
    def __init__(self, api: Api, exporter: Api, *, per_minute: float, seed: int) -> None:
        self._api = api
        self._exporter = exporter
        self._per_minute = per_minute
        self._random = random.Random(seed)
        self._replicas: dict[str, int] = {}
        self._patched_s: dict[str, float] = {}
        """When a watch last told of more replicas."""

        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._busy: set[str] = set()
        self.lags: list[Lag] = []

    async def watch(self) -> None:
        selector = "paceline.dev/component=engine"
        await self._api.follow("/apis/apps/v1/deployments", self.hear, labelSelector=selector)

    def hear(self, kind: str, deployment: Raw) -> None:
        meta, now_s = deployment["metadata"], time.time()
        service = f"{meta['namespace']}/{meta['labels'][LABEL]}"
        before = self._replicas.get(service, 0)
        now = 0 if kind == "DELETED" else deployment["spec"]["replicas"]
        self._replicas[service] = now
        if now > before:
            self._patched_s[service] = now_s
            self._news[service].set()

    async def run(self) -> None:
        """Changes at random moments until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._random.expovariate(self._per_minute / 60))
                calm = sorted(s for s, n in self._replicas.items() if n == REPLICAS and s not in self._busy)
                if calm:
                    service = self._random.choice(calm)
                    self._busy.add(service)
                    group.create_task(self._one(service))

    async def _one(self, service: str) -> None:
        self._news[service].clear()
        changed_s = await self._load(service, BUSY_PER_S)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await self._news[service].wait()
        except TimeoutError:
            self.lags.append(Lag(service=service, from_change_s=None, from_scrape_s=None))
        else:
            patched_s = self._patched_s[service]
            shown_s = (await self._exporter.call("GET", "/shown", service=service))["at_s"]
            self.lags.append(
                Lag(
                    service=service,
                    from_change_s=patched_s - changed_s,
                    from_scrape_s=patched_s - shown_s if shown_s is not None else None,
                )
            )
        await asyncio.sleep(BUSY_S)
        await self._load(service, CALM_PER_S)
        self._busy.discard(service)

    async def _load(self, service: str, requests_per_s: float) -> float:
        answer = await self._exporter.call(
            "POST", "/load", {"service": service, "requests_per_s": requests_per_s}
        )
        return float(answer["at_s"])
