"""/metrics, /healthz (also /livez) and /readyz of the operator. Nothing here changes anything.

A replica that waits for the lease is healthy and ready: it does its job, and a roll-out must be able to go
on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from paceline.controller.instruments import Instruments


class OpsServer:
    def __init__(
        self,
        instruments: Instruments,
        *,
        host: str,
        port: int,
        is_healthy: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        self._instruments = instruments
        self._host = host
        self._port = port
        self._is_healthy = is_healthy
        self._is_ready = is_ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        for path in ("/healthz", "/livez"):
            app.router.add_get(path, self._probe(self._is_healthy))
        app.router.add_get("/readyz", self._probe(self._is_ready))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        text = generate_latest(self._instruments.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    @staticmethod
    def _probe(holds: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text="ok\n") if holds() else web.Response(status=503, text="not ok\n")

        return answer
