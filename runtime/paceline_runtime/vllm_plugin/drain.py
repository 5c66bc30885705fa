"""Leave without losing a request: out of the routers' lists first, then no new requests, then the last
one's end.

Begun by POST /drain on the admin socket (the preStop hook) and carried out in the server's own event loop,
so that it goes on when the hook's process dies and a second POST changes nothing. It ends nothing itself:
the kubelet's SIGTERM does that, after the hook has seen `drained`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from paceline_core import QUIET_S, UNROUTING_BOUND_S
from paceline_runtime.vllm_plugin.routers import Routers
from paceline_runtime.vllm_plugin.serving import Serving

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    unrouting_bound_s: float = UNROUTING_BOUND_S
    quiet_s: float = QUIET_S
    """Without an arrival for this long, what a router had already sent is here."""
    ask_every_s: float = 1.0


class Drain:
    """At most one drain of this process."""

    def __init__(
        self, serving: Serving, *, routers: Routers | None = None, times: DrainTimes | None = None
    ) -> None:
        """`routers` and `times` other than those of the settings are for tests."""
        self._serving = serving
        self._times = times or DrainTimes()
        settings = serving.settings
        self._address = settings.address
        self._routers = routers or (Routers(settings.routers) if settings.routers else None)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Stop being ready, now; the rest follows by itself."""
        if self._serving.lifecycle.leave():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        lifecycle = self._serving.lifecycle
        if self._routers is not None and self._address is not None:
            await self._leave_routers(self._routers, self._address)
        lifecycle.close()
        try:
            await asyncio.wait_for(lifecycle.drained(), self._serving.settings.max_request_s)
        except TimeoutError:
            lifecycle.give_up()

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
