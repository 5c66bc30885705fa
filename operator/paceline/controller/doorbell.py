"""Asks the gates of services at zero, every second, whether somebody waits, and tells the decision loop. Run by
`process`, in the leader alone.

Prometheus would say so a scrape later, and a held request waits all that time. It is a question and not a message
of the gates: nothing has to find the leader, a process that has just started knows after its first round, and the
gates need no right and no way to the operator. The NetworkPolicy admits the operator to their operations port,
where nothing can be changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import structlog

from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.errors import FenceLost
from paceline.controller.work_queue import ServiceKey
from paceline.metrics import Gates
from paceline.planner import Doors

log = structlog.get_logger()

PERIOD_S = 1.0
REST_SHARE = 3.0
"""A round of many services takes longer; it is followed by a pause of this many times its length, so that rounds
take a quarter of one core at the most."""


class Listener(Protocol):
    """The decision loop, as far as the doorbell needs it."""

    async def hear(self, key: ServiceKey, doors: Doors) -> None: ...


class Doorbell:
    def __init__(self, *, cache: ClusterCache, gates: Gates, listener: Listener) -> None:
        self._cache = cache
        self._gates = gates
        self._listener = listener

    async def run(self) -> None:
        """Ask for ever."""
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            await self.round()
            took_s = loop.time() - started_s
            await asyncio.sleep(max(PERIOD_S - took_s, took_s * REST_SHARE))

    async def round(self) -> None:
        """Every service at zero once."""
        await asyncio.gather(*(self._one(key) for key in list(self._at_zero())))

    async def _one(self, key: ServiceKey) -> None:
        try:
            await self._listener.hear(key, await self._gates.ask(self._cache.pods(key)))
        except FenceLost:
            raise
        except Exception:
            # A fault of ours in one service must not leave the others asleep.
            log.exception("the gates were asked in vain", service=key.name, namespace=key.namespace)

    def _at_zero(self) -> Iterator[ServiceKey]:
        for key in self._cache.services():
            if (raw := self._cache.service(key)) is not None and _is_at_zero(raw):
                yield key


def _is_at_zero(raw: Mapping[str, Any]) -> bool:
    desired = ((raw.get("status") or {}).get("shape") or {}).get("desired") or {}
    return raw["spec"]["scaling"].get("mode") == "Auto" and desired.get("replicas") == 0
