"""Which service to look at next: keys, each at most once, one worker per key, errors with growing pauses.

Watches and timers add keys; workers take them. The queue says only *that* something may have changed, never
what: the reconcile looks at the whole service (level-triggered), so any number of reasons cost one look.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from dataclasses import dataclass
from typing import NamedTuple

CALM_S = 1.0
"""Between two ordinary looks at the same service. A new service causes some thirty watch events within a few
seconds, and each alone would be a reason to look."""

URGENT_CALM_S = 0.1
"""The same for urgent looks: a foreign controller that deletes what we make must not turn us into a loop."""

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0


class ServiceKey(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Task:
    key: ServiceKey
    waited_s: float


class WorkQueue:
    """Belongs to one event loop.

    A key is in one of three places, or in the last two at once:

        delayed ──(its time comes, or add)──> waiting ──take──> working ──done──> nowhere
                                                 ^                 │
                                                 └── added again ──┘   (starts only after done)
    """

    def __init__(self) -> None:
        self._waiting: dict[ServiceKey, tuple[bool, float]] = {}
        self._order: list[tuple[bool, int, ServiceKey]] = []
        self._tie = itertools.count()
        self._working: set[ServiceKey] = set()
        self._timers: dict[ServiceKey, asyncio.TimerHandle] = {}
        self._failures: dict[ServiceKey, int] = {}
        self._started_s: dict[ServiceKey, float] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: ServiceKey, *, urgent: bool = False) -> None:
        """Look at it soon: an urgent one (a new service, a lost child) as soon as a worker is free and
        before the others, an ordinary one when its calm is over."""
        loop = asyncio.get_running_loop()
        calm_until_s = self._started_s.get(key, float("-inf")) + (URGENT_CALM_S if urgent else CALM_S)
        if calm_until_s > loop.time():
            self.add_after(key, calm_until_s - loop.time())
            return
        known = self._waiting.get(key)
        if known is not None and (known[0] or not urgent):
            return
        since_s = known[1] if known is not None else loop.time()
        self._waiting[key] = (urgent, since_s)
        if key not in self._working:
            self._push(key, urgent=urgent)

    def add_after(self, key: ServiceKey, delay_s: float) -> None:
        """Look at it then at the latest; an earlier time that was already set stays."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + delay_s
        if (timer := self._timers.get(key)) is not None:
            if timer.when() <= at_s:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(at_s, self._due, key)

    def fail(self, key: ServiceKey) -> float:
        """Again, later each time; the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause_s = min(BACKOFF_FIRST_S * 2.0**failures, BACKOFF_MAX_S) * random.uniform(0.8, 1.2)
        self.add_after(key, pause_s)
        return pause_s

    def succeed(self, key: ServiceKey) -> None:
        self._failures.pop(key, None)

    def forget(self, key: ServiceKey) -> None:
        """The service is gone."""
        self._failures.pop(key, None)
        self._started_s.pop(key, None)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    async def take(self) -> Task:
        """The next key; it is the caller's alone until `done`."""
        while True:
            while self._order:
                ordinary, _, key = heapq.heappop(self._order)
                waiting = self._waiting.get(key)
                # An entry is out of date when its key was taken since, or became urgent and has a second
                # entry.
                if waiting is None or key in self._working or waiting[0] == ordinary:
                    continue
                del self._waiting[key]
                self._working.add(key)
                now_s = asyncio.get_running_loop().time()
                self._started_s[key] = now_s
                return Task(key, now_s - waiting[1])
            self._wake.clear()
            await self._wake.wait()

    def done(self, key: ServiceKey) -> None:
        self._working.discard(key)
        if (waiting := self._waiting.get(key)) is not None:
            self._push(key, urgent=waiting[0])

    def _due(self, key: ServiceKey) -> None:
        del self._timers[key]
        if key not in self._waiting:
            self._waiting[key] = (False, asyncio.get_running_loop().time())
            if key not in self._working:
                self._push(key, urgent=False)

    def _push(self, key: ServiceKey, *, urgent: bool) -> None:
        heapq.heappush(self._order, (not urgent, next(self._tie), key))
        self._wake.set()
