"""Who may call the API server next: a few at a time, the urgent first, and nobody waits for ever.

A new service's Deployment goes before the other children of all services. Each caller has a place in time,
`now + priority x PATIENCE_S`, and the earliest place goes next: so a low priority waits behind the higher
ones that come within its patience, and no longer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE_S = 0.5
"""How long one unit of priority lets others pass. The fleet counts in tens: what is one step behind waits for
five seconds of new services at most."""


class Turnstile:
    def __init__(self, *, width: int) -> None:
        self._free = width
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tie = itertools.count()

    @asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Hold one of the places for the length of the block."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
        else:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            heapq.heappush(self._waiting, (loop.time() + priority * PATIENCE_S, next(self._tie), future))
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._leave()
                raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return
        self._free += 1
