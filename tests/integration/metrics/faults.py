"""Proxies that break things on purpose: between the operator and Prometheus, and between Prometheus and pods."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

Body = dict[str, Any]


@dataclass(slots=True)
class Proxy:
    """One listener before one address. Change its fields at any time; `heal` undoes everything."""

    upstream: str
    """With scheme and port."""

    delay_s: float = 0.0
    status: int | None = None
    """Answer this, with an empty body, and do not ask."""

    failures: int | None = None
    """How many more times `status` is answered; None: always."""

    retry_after: str | None = None
    drop: bool = False
    """Close the connection without an answer."""

    rewrite: Callable[[str], str] | None = None
    """Of the body of an answer."""

    token: str | None = None
    """Without this bearer token the answer is 401."""

    asked: int = 0
    last_query: str = ""
    port: int = 0
    _runner: web.AppRunner | None = None
    _session: aiohttp.ClientSession | None = None
    tls: ssl.SSLContext | None = None

    def heal(self) -> None:
        self.delay_s, self.status, self.failures, self.retry_after = 0.0, None, None, None
        self.drop, self.rewrite, self.asked = False, None, 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    async def start(self) -> Proxy:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        self.asked += 1
        body = await request.read()
        if request.method == "POST":
            self.last_query = (await request.post()).get("query", "")  # type: ignore[assignment]
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="no such token")
        if self.drop:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.status is not None and self.failures != 0:
            if self.failures is not None:
                self.failures -= 1
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.Response(status=self.status, headers=headers)
        headers = {
            name: request.headers[name] for name in ("Content-Type", "Accept") if name in request.headers
        }
        try:
            async with self._session.request(
                request.method, self.upstream + request.path_qs, data=body, headers=headers
            ) as answer:
                text = await answer.text()
        except aiohttp.ClientError:
            return web.Response(status=502)
        if self.rewrite is not None:
            text = self.rewrite(text)
        kept = {"Content-Type": answer.headers.get("Content-Type", "text/plain")}
        return web.Response(status=answer.status, body=text.encode(), headers=kept)


@dataclass(slots=True)
class Proxies:
    """Every proxy of a test, closed together."""

    made: list[Proxy] = field(default_factory=list)

    async def before(self, upstream: str) -> Proxy:
        proxy = await Proxy(upstream=upstream).start()
        self.made.append(proxy)
        return proxy

    async def close(self) -> None:
        for proxy in self.made:
            await proxy.close()


def of_rows(change: Callable[[list[Body]], list[Body]]) -> Callable[[str], str]:
    """A rewriting of the rows of an answer of Prometheus."""

    def rewrite(text: str) -> str:
        body = json.loads(text)
        body["data"]["result"] = change(body["data"]["result"])
        return json.dumps(body)

    return rewrite


def nothing(rows: list[Body]) -> list[Body]:
    return []


def all_nan(rows: list[Body]) -> list[Body]:
    return [{**row, "value": [row["value"][0], "NaN"]} for row in rows]


def told_at(offset_s: float) -> Callable[[list[Body]], list[Body]]:
    return lambda rows: [{**row, "value": [row["value"][0] + offset_s, row["value"][1]]} for row in rows]


def without_pod(pod: str) -> Callable[[list[Body]], list[Body]]:
    return lambda rows: [row for row in rows if row["metric"].get("pod") != pod]
