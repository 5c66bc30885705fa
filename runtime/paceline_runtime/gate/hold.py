"""The hold: requests wait here while the router has no engine to send them to.

The proxy lets every request through the door; when the router says that it has no worker, or does not answer
(it is restarting), the door shuts and requests wait until a probe finds a worker again. How many wait, and
for how long, is bounded. It must not send anything itself; what a held client is given meanwhile is the
proxy's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from paceline_runtime.gate.metrics import Metrics

log = structlog.get_logger(__name__)

PROBE_EVERY_S: Final = 0.25
"""How often the router is asked for its list while the door is shut: what a held request waits longer than
it must, at most; four small requests a second on loopback."""


class HoldFull(Exception):
    """Every place to wait in is taken."""


class HoldExpired(Exception):
    """The request waited as long as it may."""


class Hold:
    """A door that is open or shut, and the bounded crowd before it.

    `probe` tells whether the router has a worker; it must not raise and must end by itself.
    """

    def __init__(self, *, max_held: int, probe: Callable[[], Awaitable[bool]], metrics: Metrics) -> None:
        self._max_held = max_held
        self._probe = probe
        self._metrics = metrics
        self._open = asyncio.Event()
        self._open.set()
        self._held = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        return self._held

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def shut(self) -> None:
        """Shut the door, because the router has no worker or does not answer. It opens by itself."""
        if self._open.is_set():
            self._open.clear()
            log.warning("hold_shut")
        if self._probing is None:
            self._probing = asyncio.create_task(self._open_when_possible())

    async def pass_through(self, *, deadline_s: float, was_held: bool) -> bool:
        """Return at once where the door is open, else when it opens. True when the request had to wait.

        `deadline_s` is a time of the running loop. A request that was held before keeps its right to a
        place: it must not be refused for a place that it left to try its luck.
        Raises HoldFull or HoldExpired.
        """
        if self._open.is_set():
            return False
        if self._held >= self._max_held and not was_held:
            raise HoldFull
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        self._held += 1
        self._metrics.held_requests.set(self._held)
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._open.wait()
        except TimeoutError:
            raise HoldExpired from None
        finally:
            self._held -= 1
            self._metrics.held_requests.set(self._held)
            self._metrics.hold_seconds.observe(loop.time() - since_s)
        return True

    async def close(self) -> None:
        """Stop probing. What still waits waits until its deadline."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _open_when_possible(self) -> None:
        # The first look comes after a pause: a router that lists a worker it will not use would else make
        # its requests go round at full speed.
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            if await self._probe():
                break
        self._probing = None
        self._open.set()
        log.info("hold_opened", held=self._held)
