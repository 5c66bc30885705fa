"""One process of the operator, from start to end: lease, cache, watches, workers, health. Called by the
command line.

    start ── health port ── lease acquired ── cache filled ──┬── watches (kopf)
                                                             ├── workers: queue -> reconciler
                                                             ├── sweeps, events
                                                             ├── decision loop, doorbell, requests of all pods
                                                             └── lease renewals
    SIGTERM: no new work, what runs may end, lease released, exit 0. Lease lost: exit at once, nothing more
    is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from typing import NoReturn

import structlog

from paceline.controller.advice_book import AdviceBook
from paceline.controller.api_client import ApiClient
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.conflict_book import ConflictBook
from paceline.controller.connection import Connection
from paceline.controller.decision_loop import DecisionLoop
from paceline.controller.decision_metrics import DecisionMetrics
from paceline.controller.decision_store import DecisionStore
from paceline.controller.doorbell import Doorbell
from paceline.controller.errors import FenceLost
from paceline.controller.event_recorder import EventRecorder
from paceline.controller.facts import FactsSource
from paceline.controller.fence import Fence
from paceline.controller.instruments import Instruments
from paceline.controller.lease import Lease
from paceline.controller.ops_server import OpsServer
from paceline.controller.planners import Planners
from paceline.controller.pod_info import PodInfoSource
from paceline.controller.pod_requests import PodRequests
from paceline.controller.quotas import QuotaBook
from paceline.controller.reconciler import Reconciler
from paceline.controller.resources import POD_MONITOR
from paceline.controller.settings import OperatorSettings
from paceline.controller.status_writer import StatusWriter
from paceline.controller.sweep import Sweep
from paceline.controller.turnstile import Turnstile
from paceline.controller.watch import Watch
from paceline.controller.work_queue import ServiceKey, WorkQueue
from paceline.controller.workers import Workers
from paceline.controller.writer import Writer
from paceline.fleet import Settings as FleetSettings
from paceline.metrics import Gates, MetricsSource

log = structlog.get_logger()

EXIT_LEASE_LOST = 3
PLANNING = 8
"""Services whose urgent part is under way at the same time. Planning is pure computation: many at once
would only let the first of them wait for the last."""

STOP_S = 10.0
"""For everything to end after SIGTERM, before the lease is given up."""


class OperatorProcess:
    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._instruments = Instruments()
        self._fence = Fence()
        self._cache = ClusterCache()
        self._queue = WorkQueue()
        self._decision_metrics = DecisionMetrics()
        self._instruments.add(self._decision_metrics)
        self._stop = asyncio.Event()
        self._leading = False
        self._instruments.count_services(self._cache.count_by_ready)
        self._instruments.queue_depth.set_function(lambda: len(self._queue))

    async def run(self) -> int:
        """The exit code of the process."""
        self._catch_signals()
        connection = await Connection.load(kubeconfig=self._settings.kubeconfig)
        client = ApiClient(
            connection,
            fence=self._fence,
            instruments=self._instruments,
            connections=self._settings.width + self._settings.narrow + 2,
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
        except FenceLost as lost:
            self._leave_at_once(lost)
        finally:
            keep.cancel()
            await lease.release()
            self._instruments.leader.set(0)
        return 0

    async def _prime(self, sweep: Sweep) -> bool:
        started_s = time.monotonic()
        if not await self._or_stop(sweep.prime()):
            return False
        log.info(
            "cache filled",
            services=len(list(self._cache.services())),
            seconds=round(time.monotonic() - started_s, 2),
        )
        return True

    async def _work(
        self, connection: Connection, client: ApiClient, sweep: Sweep, keep: asyncio.Task[None]
    ) -> None:
        turnstile = Turnstile(width=self._settings.width, narrow=self._settings.narrow)
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
        advice = AdviceBook()
        writer = Writer(
            client,
            cache=self._cache,
            conflicts=conflicts,
            turnstile=turnstile,
            instruments=self._instruments,
        )
        reconciler = Reconciler(
            cache=self._cache,
            conflicts=conflicts,
            writer=writer,
            status_writer=StatusWriter(
                client, cache=self._cache, turnstile=turnstile, instruments=self._instruments
            ),
            events=events,
            facts=facts,
            pod_infos=infos,
            advice=advice,
            instruments=self._instruments,
            settings=lambda: self._fleet_settings(sweep),
            now_s=client.clock.now_s,
        )
        requests = PodRequests(client, connection)
        source, gates = MetricsSource(self._settings.metrics), Gates()
        decisions = DecisionLoop(
            cache=self._cache,
            looks=reconciler,
            source=source,
            gates=gates,
            planners=Planners(),
            requests=requests,
            quotas=QuotaBook(client),
            advice=advice,
            store=DecisionStore(writer, cache=self._cache),
            metrics=self._decision_metrics,
            instruments=self._instruments,
            wanted=self._want,
            period_s=self._settings.decision_period_s,
            gpu_budget=self._settings.cluster_gpu_budget,
        )
        watching = asyncio.create_task(self._watch(connection, sweep), name="watch")
        others = [
            asyncio.create_task(
                Workers(
                    self._queue, reconciler, instruments=self._instruments, resync_s=self._settings.resync_s
                ).run(),
                name="workers",
            ),
            asyncio.create_task(sweep.run(), name="sweep"),
            asyncio.create_task(events.run(), name="events"),
            asyncio.create_task(requests.run(), name="requests of all pods"),
            asyncio.create_task(decisions.run(), name="decisions"),
            asyncio.create_task(
                Doorbell(cache=self._cache, gates=gates, listener=decisions).run(), name="doorbell"
            ),
        ]
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait(
                {keep, watching, stopping, *others}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopping}:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended before the process was told to")
        except FenceLost as lost:
            self._leave_at_once(lost)
        finally:
            for task in (watching, *others, stopping):
                task.cancel()
            await asyncio.wait({watching, *others}, timeout=STOP_S)
            await source.close()
            await gates.close()
            await infos.close()
            await facts.close()

    async def _watch(self, connection: Connection, sweep: Sweep) -> None:
        """Until cancelled; begun anew when the API server learns or forgets a kind."""
        while True:
            watch = Watch(
                connection,
                cache=self._cache,
                wanted=self._want,
                instruments=self._instruments,
                namespaces=self._settings.namespaces,
                resources=sweep.kinds,
                on_started=self._catch_signals,
            )
            sweep.kinds_changed.clear()
            watching = asyncio.create_task(watch.run(), name="streams")
            changed = asyncio.create_task(sweep.kinds_changed.wait())
            try:
                await asyncio.wait({watching, changed}, return_when=asyncio.FIRST_COMPLETED)
                if watching.done():
                    # The stream of a kind breaks when its definition is deleted; the sweep then says so.
                    await sweep.sweep(POD_MONITOR)
                    if not sweep.kinds_changed.is_set():
                        watching.result()
            finally:
                for task in (watching, changed):
                    task.cancel()
                await asyncio.wait({watching})

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

    def _leave_at_once(self, lost: FenceLost) -> NoReturn:
        # Not an orderly end: whatever still runs in here belongs to a leader that no longer is one.
        log.error("lease lost: the process ends", error=str(lost), exit_code=EXIT_LEASE_LOST)
        os._exit(EXIT_LEASE_LOST)
