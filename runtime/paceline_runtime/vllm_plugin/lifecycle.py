"""The phase of one engine pod, and the requests inside it.

    loading ──open──▶ serving ──leave──▶ unrouting ──close──▶ draining ──last request ends──▶ drained
       └───────────────────────leave──────────▲
                  ▲─────────────────────resume──────────────────────────┘

The middleware reports arrivals and ends; the admin socket opens and drains; probes and metrics read. In
`unrouting` the pod is no longer ready but still accepts: routers learn of it later than it happened, and a
request they had already sent must not be refused. Pure but for the clock, which is an argument.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum

import structlog

log = structlog.get_logger(__name__)


class Phase(StrEnum):
    LOADING = "loading"
    SERVING = "serving"
    UNROUTING = "unrouting"
    DRAINING = "draining"
    DRAINED = "drained"


_LEAVING = (Phase.UNROUTING, Phase.DRAINING, Phase.DRAINED)


class Lifecycle:
    """One pod's phase. `clock` gives seconds that only go forward."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._phase = Phase.LOADING
        self._in_flight = 0
        self._last_arrival_s: float | None = None
        self._drained = asyncio.Event()

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def in_flight(self) -> int:
        """Requests whose body has not ended."""
        return self._in_flight

    @property
    def ready(self) -> bool:
        return self._phase is Phase.SERVING

    @property
    def leaving(self) -> bool:
        return self._phase in _LEAVING

    @property
    def accepts(self) -> bool:
        return self._phase not in (Phase.DRAINING, Phase.DRAINED)

    @property
    def measured(self) -> bool:
        """Whether a request counts: what arrives while loading is the launcher's warm-up."""
        return self._phase is not Phase.LOADING

    def last_arrival_age_s(self) -> float | None:
        """Seconds since a request came; None if none ever did."""
        return None if self._last_arrival_s is None else self._clock() - self._last_arrival_s

    def open(self) -> None:
        """The engine is warm. A pod that was told to leave before stays as it is."""
        if self._phase is Phase.LOADING:
            self._enter(Phase.SERVING)

    def leave(self) -> bool:
        """Stop being ready. False if it was leaving already."""
        if self.leaving:
            return False
        self._enter(Phase.UNROUTING)
        return True

    def close(self) -> None:
        """Stop accepting."""
        if self._phase is Phase.UNROUTING:
            self._enter(Phase.DRAINING)
            self._settle()

    def resume(self) -> None:
        """Be ready again: the pod was not to leave for good, and its requests have not ended in time."""
        if self._phase is Phase.DRAINING:
            self._enter(Phase.SERVING)

    def give_up(self) -> None:
        """The time for draining has passed: what still runs is lost when the process ends."""
        if self._phase is Phase.DRAINING:
            log.error("drain_overdue", in_flight=self._in_flight)
            self._enter(Phase.DRAINED)

    def arrive(self) -> None:
        self._in_flight += 1
        self._last_arrival_s = self._clock()

    def depart(self) -> None:
        self._in_flight -= 1
        self._settle()

    async def drained(self) -> None:
        """Return when the last request has ended after `close`, or after `give_up`."""
        await self._drained.wait()

    def _settle(self) -> None:
        if self._phase is Phase.DRAINING and self._in_flight == 0:
            self._enter(Phase.DRAINED)

    def _enter(self, phase: Phase) -> None:
        log.info("phase", before=self._phase.value, now=phase.value, in_flight=self._in_flight)
        self._phase = phase
        if phase is Phase.DRAINED:
            self._drained.set()
