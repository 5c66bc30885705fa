"""The gate as a process: its parts put together, its ports opened, its end in order.

`paceline-runtime gate` calls :func:`run`. The upkeep (pods, reconcile, files) may fail and start again; it
must never end the process, which would cut every stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import structlog
from aiohttp import web

from paceline_runtime.gate import drain as drain_socket
from paceline_runtime.gate import ops
from paceline_runtime.gate.drain import Drain
from paceline_runtime.gate.hold import Hold
from paceline_runtime.gate.keys import Keys
from paceline_runtime.gate.metrics import Metrics, TargetsFile
from paceline_runtime.gate.pods import ApiServer, PodWatch, StaticPods
from paceline_runtime.gate.proxy import Limits, Proxy
from paceline_runtime.gate.workers import Reconcile, RouterList, RouterSilent

log = structlog.get_logger(__name__)

REREAD_EVERY_S: Final = 2.0
"""Keys and targets. The kubelet itself brings a changed Secret in about a minute."""

KEEPALIVE_S: Final = 75.0
BACKLOG: Final = 1024

END_SLACK_S: Final = 5.0
"""A request that reaches its own limit while the gate ends is cut by that limit, with its error event."""


@dataclass(frozen=True, slots=True)
class Engines:
    """How the gate finds the engine pods: in a cluster by watch, else the given workers."""

    api: ApiServer
    namespace: str
    selector: str
    port: int


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What `paceline-runtime gate` was told."""

    service: str
    router_url: str
    engines: Engines | frozenset[str]
    limits: Limits
    max_held: int
    host: str | None
    port: int
    ops_port: int
    api_keys_dir: Path | None
    targets: Path | None
    socket: Path


async def run(settings: GateSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let what runs end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        drain = await _open(settings, stack)
        log.info("gate_started", service=settings.service, port=settings.port, ops_port=settings.ops_port)
        await stop.wait()
        drain.begin(why="SIGTERM")
    log.info("gate_ended")


async def _open(settings: GateSettings, stack: contextlib.AsyncExitStack) -> Drain:
    """Start every part, so that leaving `stack` ends the public port first and the ops port after it."""
    metrics = Metrics()
    drain = Drain()
    keys = Keys(settings.api_keys_dir)
    session = await stack.enter_async_context(_router_session())
    router = RouterList(session, router_url=settings.router_url)
    upkeep: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    if isinstance(settings.engines, Engines):
        poke = asyncio.Event()
        watch = PodWatch(
            settings.engines.api,
            namespace=settings.engines.namespace,
            selector=settings.engines.selector,
            port=settings.engines.port,
            on_change=poke.set,
        )
        stack.push_async_callback(watch.close)
        upkeep.append(("pod_watch", watch.run))
        reconcile = Reconcile(router, wanted=watch, changed=poke, metrics=metrics)
    else:
        # No discovery runs in the router: what is missing is ours to add, at once.
        reconcile = Reconcile(
            router,
            wanted=StaticPods(settings.engines),
            changed=asyncio.Event(),
            metrics=metrics,
            add_after_s=0,
        )
    stack.push_async_callback(reconcile.close)
    upkeep.append(("reconcile", reconcile.run))
    rereads: list[Callable[[], None]] = [keys.reread]
    if settings.targets is not None:
        targets = TargetsFile(settings.targets, metrics=metrics)
        targets.reread()
        rereads.append(targets.reread)
    upkeep.append(("files", lambda: _reread(rereads)))

    async def has_worker() -> bool:
        try:
            return bool(await router.read())
        except RouterSilent:
            return False

    hold = Hold(max_held=settings.max_held, probe=has_worker, metrics=metrics)
    stack.push_async_callback(hold.close)
    stack.push_async_callback(_end, [asyncio.create_task(_keep(name, part)) for name, part in upkeep])

    ops_app = ops.application(drain=drain, metrics=metrics, reconcile=reconcile, router=router)
    ops_runner = web.AppRunner(ops_app, access_log=None)
    await ops_runner.setup()
    stack.push_async_callback(ops_runner.cleanup)
    await web.TCPSite(ops_runner, settings.host, settings.ops_port).start()

    drain_runner = await drain_socket.listen(drain, socket=settings.socket)
    stack.push_async_callback(drain_runner.cleanup)

    proxy = Proxy(
        session,
        router_url=settings.router_url,
        limits=settings.limits,
        keys=keys,
        hold=hold,
        reconcile=reconcile,
        drain=drain,
        metrics=metrics,
    )
    public = web.Server(
        proxy.handle,
        # A client that leaves ends its request at once, also while the engine is silent.
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_S,
        access_log=None,
    )
    limits = settings.limits
    ends_within_s = limits.max_hold_s + limits.max_request_s + END_SLACK_S
    runner = web.ServerRunner(public, shutdown_timeout=ends_within_s)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
    return drain


def _router_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    )


async def _keep(name: str, part: Callable[[], Awaitable[None]]) -> None:
    """Run a part for ever. A defect in it is logged and it starts again: streams outlive it."""
    while True:
        try:
            await part()
        except Exception:
            log.error("upkeep_failed", part=name, traceback=traceback.format_exc())
        await asyncio.sleep(1)


async def _reread(files: Iterable[Callable[[], None]]) -> None:
    while True:
        await asyncio.sleep(REREAD_EVERY_S)
        for reread in files:
            reread()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
