"""The workers: take services from the queue, look at each, and say when to look again. Run by `process`.

A few services at a time are in their urgent part (what makes the engine appear); the rest of each goes on
beside them and waits in the turnstile, so that a new service never waits for the routers of those before
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import structlog

from paceline.controller.errors import ApiError, FenceLost
from paceline.controller.instruments import Instruments
from paceline.controller.reconciler import Reconciler
from paceline.controller.work_queue import ServiceKey, Task, WorkQueue

log = structlog.get_logger()

PLANNING = 8
"""Services whose urgent part is under way at the same time. Planning is pure computation: many at once would
only let the first of them wait for the last."""

TOO_EARLY_S = 0.05
"""Between a look that came too early (the cache was behind) and the next."""

GRACE_S = 5.0
"""What runs at SIGTERM may end within this time."""


class Workers:
    """Takes keys from the queue, a few urgent parts at a time, and lets the rest of each run on."""

    def __init__(
        self, queue: WorkQueue, reconciler: Reconciler, *, instruments: Instruments, resync_s: float
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._instruments = instruments
        self._resync_s = resync_s
        self._places = asyncio.Semaphore(PLANNING)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled: then nothing new is taken, and what runs may end within GRACE_S."""
        broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        taking = asyncio.create_task(self._take(broken), name="take")
        try:
            await asyncio.wait({taking, broken}, return_when=asyncio.FIRST_COMPLETED)
            (broken if broken.done() else taking).result()
        finally:
            taking.cancel()
            if not broken.done() and self._running:
                await asyncio.wait(self._running, timeout=GRACE_S)
            for task in self._running:
                task.cancel()

    async def _take(self, broken: asyncio.Future[None]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and not broken.done():
                broken.set_exception(error)

        while True:
            await self._places.acquire()
            taken = await self._queue.take()
            task = asyncio.create_task(self._one(taken), name=f"{taken.key.namespace}/{taken.key.name}")
            self._running.add(task)
            task.add_done_callback(ended)

    async def _one(self, task: Task) -> None:
        place = contextlib.ExitStack()
        place.callback(self._places.release)
        self._instruments.queue_wait_s.observe(task.waited_s)
        started_s = time.perf_counter()
        outcome = "error"
        try:
            outcome = await self._reconcile(task.key, place)
        finally:
            self._instruments.reconcile_s.labels(outcome=outcome).observe(time.perf_counter() - started_s)
            place.close()
            self._queue.done(task.key)

    async def _reconcile(self, key: ServiceKey, place: contextlib.ExitStack) -> str:
        try:
            result = await self._reconciler.run(key, urgent_done=place.close)
        except FenceLost:
            raise
        except ApiError as error:
            pause_s = self._queue.fail(key)
            log.warning("reconcile failed", service=key.name, namespace=key.namespace, error=str(error),
                        again_in_s=round(pause_s, 1))  # fmt: skip
            return "api_error"
        except Exception:
            # A fault of ours in one service must not stop the others.
            pause_s = self._queue.fail(key)
            log.exception(
                "reconcile broke", service=key.name, namespace=key.namespace, again_in_s=round(pause_s, 1)
            )
            return "error"
        if result.gone:
            self._queue.forget(key)
            return "gone"
        if result.failed:
            self._queue.fail(key)
        else:
            self._queue.succeed(key)
        if result.too_early:
            self._queue.add_after(key, TOO_EARLY_S)
        elif result.moved:
            self._queue.add(key)
        resync_s = self._resync_s * random.uniform(0.8, 1.2)
        self._queue.add_after(key, min(resync_s, result.requeue_after_s or resync_s))
        return "failed" if result.failed else "ok"
