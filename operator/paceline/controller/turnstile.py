"""Who may call the API server next: a few at a time, the urgent before everything else, and nobody waits
for ever.

What makes a new service's engine appear goes before the other children of all services. On a small control
plane that means more than an order of the waiting ones: a server that is busy with routers and policies
answers the urgent call late. So the patient ones enter a few at a time, and only while no urgent one is
inside.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paceline.fleet.manifests import ENGINES

URGENT = ENGINES
"""Callers of this priority or a smaller number are urgent."""

PATIENCE_S = 30.0
"""A patient caller that has waited this long is treated as an urgent one."""


class Turnstile:
    """Belongs to one event loop.

    inside: urgent <= width, patient <= narrow; a patient one enters only if no urgent one is inside or waits
    """

    def __init__(self, *, width: int, narrow: int) -> None:
        self._width = width
        self._narrow = narrow
        self._urgent_inside = 0
        self._patient_inside = 0
        self._urgent: list[_Waiting] = []
        self._patient: list[_Waiting] = []
        self._tie = itertools.count()

    @asynccontextmanager
    async def turn(self, priority: int) -> AsyncIterator[None]:
        """Hold one of the places for the length of the block."""
        urgent = priority <= URGENT
        waiting = _Waiting(priority, next(self._tie), asyncio.get_running_loop().create_future())
        heapq.heappush(self._urgent if urgent else self._patient, waiting)
        patience = None if urgent else self._be_patient(waiting)
        self._admit()
        try:
            await waiting.future
        except asyncio.CancelledError:
            if waiting.future.done() and not waiting.future.cancelled():
                self._leave(urgent=waiting.future.result())
            raise
        finally:
            if patience is not None:
                patience.cancel()
        try:
            yield
        finally:
            self._leave(urgent=waiting.future.result())

    def _be_patient(self, waiting: _Waiting) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(PATIENCE_S, self._lose_patience, waiting)

    def _lose_patience(self, waiting: _Waiting) -> None:
        if not waiting.future.done():
            # Its entry among the patient is skipped once the future is done.
            heapq.heappush(self._urgent, waiting)
            self._admit()

    def _leave(self, *, urgent: bool) -> None:
        if urgent:
            self._urgent_inside -= 1
        else:
            self._patient_inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._urgent_inside < self._width and (first := _first(self._urgent)) is not None:
            self._urgent_inside += 1
            first.future.set_result(True)
        if self._urgent_inside:
            return
        while self._patient_inside < self._narrow and (first := _first(self._patient)) is not None:
            self._patient_inside += 1
            first.future.set_result(False)


class _Waiting:
    """One caller; the future's result says as what it came in."""

    __slots__ = ("future", "order")

    def __init__(self, priority: int, tie: int, future: asyncio.Future[bool]) -> None:
        self.order = (priority, tie)
        self.future = future

    def __lt__(self, other: _Waiting) -> bool:
        return self.order < other.order


def _first(heap: list[_Waiting]) -> _Waiting | None:
    while heap:
        waiting = heapq.heappop(heap)
        if not waiting.future.done():
            return waiting
    return None
