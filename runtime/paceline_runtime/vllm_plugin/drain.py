"""Leave without losing a request: out of the routers' lists first, then no new requests, then the last
one's end.

Begun on the admin socket and carried out in the server's own event loop, so that it goes on when whoever asked dies
and a second POST changes nothing. It ends nothing itself: that is done by who asked, after it has seen `drained`.

    POST /drain   for good (the preStop hook): at the latest after maxRequestSeconds it is over
    POST /pause   for another layout of this pod (the launcher): where requests have not ended in time, the pod serves
                  on, and says why it refused. A drain that comes meanwhile makes it one for good.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from paceline_core import QUIET_S, UNROUTING_BOUND_S, LayoutOrder
from paceline_runtime.vllm_plugin.routers import Routers
from paceline_runtime.vllm_plugin.serving import Serving
from paceline_runtime.vllm_plugin.settings import RefusedLayout

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    unrouting_bound_s: float = UNROUTING_BOUND_S
    quiet_s: float = QUIET_S
    """Without an arrival for this long, what a router had already sent is here."""
    ask_every_s: float = 1.0


class Drain:
    """At most one at a time in this process."""

    def __init__(
        self, serving: Serving, *, routers: Routers | None = None, times: DrainTimes | None = None
    ) -> None:
        """`routers` and `times` other than those of the settings are for tests."""
        self._serving = serving
        self._times = times or DrainTimes()
        settings = serving.settings
        self._address = settings.address
        self._routers = routers or (Routers(settings.routers) if settings.routers else None)
        self._for_good = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Stop being ready, now; the rest follows by itself."""
        self._for_good = True
        if self._serving.lifecycle.leave():
            self._task = asyncio.get_running_loop().create_task(
                self._run(self._serving.settings.max_request_s)
            )

    def pause(self, order: LayoutOrder) -> None:
        """The same, to start anew in another layout; given up after its time, or that of the longest request."""
        if not self._serving.lifecycle.leave():
            return
        longest_s = self._serving.settings.max_request_s
        within_s = longest_s if order.drain_s is None else min(order.drain_s, longest_s)
        self._task = asyncio.get_running_loop().create_task(self._pause(order, within_s=within_s))

    async def _run(self, within_s: float) -> None:
        if not await self._empty(within_s):
            self._serving.lifecycle.give_up()

    async def _pause(self, order: LayoutOrder, *, within_s: float) -> None:
        lifecycle = self._serving.lifecycle
        if await self._empty(within_s):
            return
        if self._for_good:
            await self._run(self._serving.settings.max_request_s - within_s)
            return
        message = (
            f"{lifecycle.in_flight} requests still ran {within_s:g} s after new ones were kept away: allow a longer "
            "hold (spec.transition.maxHoldSeconds), or shorter requests"
        )
        log.warning("layout_refused", order=str(order), message=message)
        self._serving.refused_layout = RefusedLayout(str(order), message)
        lifecycle.resume()

    async def _empty(self, within_s: float) -> bool:
        """Whether the last request ended in time."""
        lifecycle = self._serving.lifecycle
        if self._routers is not None and self._address is not None:
            await self._leave_routers(self._routers, self._address)
        lifecycle.close()
        try:
            await asyncio.wait_for(lifecycle.drained(), within_s)
        except TimeoutError:
            return False
        return True

    async def _leave_routers(self, routers: Routers, address: str) -> None:
        began_s = self._serving.clock()
        while (waited_s := self._serving.clock() - began_s) < self._times.unrouting_bound_s:
            listed = await routers.list_worker(address)
            arrival_age_s = self._serving.lifecycle.last_arrival_age_s()
            quiet_s = waited_s if arrival_age_s is None else min(waited_s, arrival_age_s)
            if listed is False and quiet_s >= self._times.quiet_s:
                log.info("unrouted", waited_s=round(waited_s, 1))
                return
            await asyncio.sleep(self._times.ask_every_s)
        log.warning("unrouting_overdue", waited_s=self._times.unrouting_bound_s)
