"""An engine pod's own word about itself (`GET /paceline/info` at its address), asked once per readiness.

The reconciler asks for what is known and never waits; an answer that arrives makes the service be looked at
again. A pod that does not answer is unknown, and asked again later.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import structlog

from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Pod, PodInfo

log = structlog.get_logger()

TIMEOUT_S = 2.0
RETRY_S = 30.0
WIDTH = 8
KEPT = 10_000
"""Pods whose answer is kept; the oldest are forgotten and asked again if they are still there."""

ENGINE_PORT = 8000
ANSWER_LIMIT_BYTES = 64 * 1024


class PodInfoSource:
    def __init__(self, *, on_news: Callable[[ServiceKey], None]) -> None:
        self._on_news = on_news
        self._known: OrderedDict[str, tuple[float | None, PodInfo]] = OrderedDict()
        """By uid, with the moment since when the pod was Ready: it may come back as another one."""

        self._next_try_s: OrderedDict[str, float] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(WIDTH)
        self._session: aiohttp.ClientSession | None = None

    def of(self, key: ServiceKey, pod: Pod) -> PodInfo | None:
        since_s, known = self._known.get(pod.uid, (None, None))
        is_old = known is None or since_s != pod.ready_since_s
        if is_old and pod.component == "engine" and pod.serving and pod.ip is not None:
            self._ask(key, pod.uid, pod.ip, since_s=pod.ready_since_s)
        return replace(known, is_old=is_old) if known is not None else None

    async def close(self) -> None:
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _ask(self, key: ServiceKey, uid: str, ip: str, *, since_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        readiness = f"{uid}@{since_s}"
        if uid in self._asking or self._next_try_s.get(readiness, 0.0) > loop.time():
            return
        self._next_try_s[readiness] = loop.time() + RETRY_S
        _bound(self._next_try_s)
        task = loop.create_task(self._fetch(key, uid, ip, since_s=since_s))
        self._asking[uid] = task
        task.add_done_callback(lambda _: self._asking.pop(uid, None))

    async def _fetch(self, key: ServiceKey, uid: str, ip: str, *, since_s: float | None) -> None:
        host = f"[{ip}]" if ":" in ip else ip
        async with self._places:
            try:
                info = await self._get(f"http://{host}:{ENGINE_PORT}/paceline/info")
            except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, AttributeError) as error:
                log.info(
                    "engine pod did not say what it is",
                    service=key.name,
                    namespace=key.namespace,
                    pod_ip=ip,
                    error=str(error) or type(error).__name__,
                )
                return
        self._known[uid] = (since_s, info)
        _bound(self._known)
        self._on_news(key)

    async def _get(self, url: str) -> PodInfo:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                connector=aiohttp.TCPConnector(force_close=True),
            )
        async with self._session.get(url, raise_for_status=True, allow_redirects=False) as answer:
            # A pod runs what its image says: no answer is read without a limit.
            return PodInfo.parse(json.loads(await answer.content.read(ANSWER_LIMIT_BYTES)))


def _bound(table: OrderedDict[str, Any]) -> None:
    while len(table) > KEPT:
        table.popitem(last=False)
