"""One process of the operator, from start to end: lease, cache, watches, workers, health. Called by the
command line.

    start ── health port ── lease acquired ── cache filled ──┬── watches (kopf)
                                                             ├── workers: queue -> reconciler
                                                             ├── sweeps, events
                                                             └── lease renewals
    SIGTERM: no new work, what runs may end, lease released, exit 0. Lease lost: exit at once, nothing more
    is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import time

import structlog

from paceline.controller.api_client import ApiClient
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.conflict_book import ConflictBook
from paceline.controller.connection import Connection
from paceline.controller.errors import ApiError, FenceLost
from paceline.controller.event_recorder import EventRecorder
from paceline.controller.facts import FactsSource
from paceline.controller.fence import Fence
from paceline.controller.instruments import Instruments
from paceline.controller.lease import Lease
from paceline.controller.ops_server import OpsServer
from paceline.controller.pod_info import PodInfoSource
from paceline.controller.reconciler import Reconciler
from paceline.controller.settings import OperatorSettings
from paceline.controller.status_writer import StatusWriter
from paceline.controller.sweep import Sweep
from paceline.controller.turnstile import Turnstile
from paceline.controller.watch import Watch
from paceline.controller.work_queue import ServiceKey, Task, WorkQueue
from paceline.controller.writer import Writer
from paceline.fleet import Settings as FleetSettings

log = structlog.get_logger()

EXIT_LEASE_LOST = 3
PLANNING = 8
"""Services whose urgent part is under way at the same time. Planning is pure computation: many at once
would only let the first of them wait for the last."""

LOOK_AGAIN_S = 0.05
"""Between a look that came too early (the cache was behind) and the next."""

GRACE_S = 5.0
"""What runs at SIGTERM may end within this time."""


class OperatorProcess:
    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._instruments = Instruments()
        self._fence = Fence()
        self._cache = ClusterCache()
        self._queue = WorkQueue()
        self._stop = asyncio.Event()
        self._leading = False
        self._instruments.count_services(self._cache.count_by_ready)
        self._instruments.queue_depth.set_function(lambda: len(self._queue))

    async def run(self) -> int:
        """The exit code of the process."""
        self._catch_signals()
        connection = await Connection.load(kubeconfig=self._settings.kubeconfig)
        client = ApiClient(
            connection, fence=self._fence, instruments=self._instruments, connections=self._settings.width + 4
        )
        ops = OpsServer(
            self._instruments,
            host=self._settings.metrics_host,
            port=self._settings.metrics_port,
            is_healthy=lambda: not self._leading or self._fence.remaining_s > 0,
            is_ready=lambda: True,
        )
        await ops.start()
        lease = Lease(client, settings=self._settings.lease, fence=self._fence)
        try:
            if not await self._or_stop(lease.acquire()):
                return 0
            return await self._lead(connection, client, lease)
        finally:
            await ops.close()
            await client.close()

    async def _lead(self, connection: Connection, client: ApiClient, lease: Lease) -> int:
        self._leading = True
        self._instruments.leader.set(1)
        sweep = Sweep(client, cache=self._cache, wanted=self._want, namespaces=self._settings.namespaces)
        keep = asyncio.create_task(lease.keep(), name="lease")
        try:
            prime = asyncio.create_task(self._prime(sweep), name="prime")
            await asyncio.wait({keep, prime}, return_when=asyncio.FIRST_COMPLETED)
            if keep.done():
                prime.cancel()
                keep.result()
            if prime.result():
                await self._work(connection, client, sweep, keep)
            return 0
        except FenceLost as lost:
            self._leave_at_once(lost)
        finally:
            keep.cancel()
            await lease.release()
            self._instruments.leader.set(0)
        return EXIT_LEASE_LOST

    async def _prime(self, sweep: Sweep) -> bool:
        started_s = time.monotonic()
        if not await self._or_stop(sweep.prime()):
            return False
        log.info("cache filled", services=len(list(self._cache.services())),
                 seconds=round(time.monotonic() - started_s, 2))  # fmt: skip
        return True

    async def _work(
        self, connection: Connection, client: ApiClient, sweep: Sweep, keep: asyncio.Task[None]
    ) -> None:
        turnstile = Turnstile(width=self._settings.width)
        conflicts = ConflictBook()
        events = EventRecorder(
            client, turnstile=turnstile, instruments=self._instruments, instance=self._settings.lease.identity
        )
        infos = PodInfoSource(on_news=self._queue.add)
        facts = FactsSource(
            client,
            hub_endpoint=self._settings.hub_endpoint,
            on_news=lambda key: self._queue.add(key, urgent=True),
        )
        reconciler = Reconciler(
            cache=self._cache,
            conflicts=conflicts,
            writer=Writer(
                client,
                cache=self._cache,
                conflicts=conflicts,
                turnstile=turnstile,
                instruments=self._instruments,
            ),
            status_writer=StatusWriter(
                client, cache=self._cache, turnstile=turnstile, instruments=self._instruments
            ),
            events=events,
            facts=facts,
            pod_infos=infos,
            instruments=self._instruments,
            settings=lambda: self._fleet_settings(sweep),
        )
        watching = asyncio.create_task(self._watch(connection, sweep), name="watch")
        others = [
            asyncio.create_task(
                _Workers(self._queue, reconciler, self._instruments, self._settings).run(), name="workers"
            ),
            asyncio.create_task(sweep.run(), name="sweep"),
            asyncio.create_task(events.run(), name="events"),
        ]
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait(
                {keep, watching, stopping, *others}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopping}:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended before the process was told to")
        finally:
            self._stop.set()
            for task in (*others, stopping):
                task.cancel()
            await asyncio.wait({watching, *others}, timeout=2 * GRACE_S)
            await infos.close()
            await facts.close()

    async def _watch(self, connection: Connection, sweep: Sweep) -> None:
        """Until the process stops; begun anew when the API server learns or forgets a kind."""
        while not self._stop.is_set():
            watch = Watch(
                connection,
                cache=self._cache,
                wanted=self._want,
                instruments=self._instruments,
                namespaces=self._settings.namespaces,
                resources=sweep.kinds,
                on_started=self._catch_signals,
            )
            stop_watch = asyncio.Event()
            sweep.kinds_changed.clear()
            watching = asyncio.create_task(watch.run(stop=stop_watch))
            reasons = [asyncio.create_task(one.wait()) for one in (self._stop, sweep.kinds_changed)]
            try:
                await asyncio.wait({watching, *reasons}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    watching.result()
                    raise RuntimeError("the watches ended before the process was told to")
                stop_watch.set()
                await watching
            finally:
                for task in (watching, *reasons):
                    task.cancel()

    def _fleet_settings(self, sweep: Sweep) -> FleetSettings:
        fleet = self._settings.fleet
        if fleet.pod_monitor_available == sweep.pod_monitors_known:
            return fleet
        return dataclasses.replace(fleet, pod_monitor_available=sweep.pod_monitors_known)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    def _want(self, key: ServiceKey, urgent: bool) -> None:
        self._queue.add(key, urgent=urgent)

    async def _or_stop(self, work: object) -> bool:
        """Whether the work ended, not the wish to stop."""
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            for one in (task, stopping):
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await one

    def _leave_at_once(self, lost: FenceLost) -> None:
        # Not an orderly end: whatever still runs in here belongs to a leader that no longer is one.
        log.error("lease lost: the process ends", error=str(lost), exit_code=EXIT_LEASE_LOST)
        os._exit(EXIT_LEASE_LOST)


class _Workers:
    """Takes keys from the queue, a few urgent parts at a time, and lets the rest of each run on."""

    def __init__(
        self, queue: WorkQueue, reconciler: Reconciler, instruments: Instruments, settings: OperatorSettings
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._instruments = instruments
        self._settings = settings
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
        if result.look_again:
            self._queue.add_after(key, LOOK_AGAIN_S)
        resync_s = self._settings.resync_s * random.uniform(0.8, 1.2)
        self._queue.add_after(key, min(resync_s, result.requeue_after_s or resync_s))
        return "failed" if result.failed else "ok"
