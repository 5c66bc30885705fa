"""A worker that the tests can look into: real HTTP, in the test's own loop.

It speaks as much of an engine as the router and the gate use, and tells what reached it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(slots=True)
class Worker:
    """One worker. Change `step_s`, `refuse_with` and `healthy` at any time."""

    step_s: float = 0.01
    refuse_with: int | None = None
    healthy: bool = True
    running: int = 0
    left: int = 0
    """Requests whose client went before the answer had ended."""
    seen: list[str] = field(default_factory=list)
    """Method and path of every request except health checks."""
    headers: list[dict[str, str]] = field(default_factory=list)
    ip: str = "127.0.0.1"
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"

    async def start(self, *, port: int = 0) -> Worker:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_route("*", "/{path:.*}", self._anything)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.ip, port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def die(self) -> None:
        """As after SIGKILL: every connection is reset and nobody listens."""
        runner, self._runner = self._runner, None
        if runner is None or runner.server is None:
            return
        for site in runner.sites:
            await site.stop()
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _anything(self, request: web.Request) -> web.Response:
        self.seen.append(f"{request.method} {request.path}")
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})
        return web.json_response({"reached": request.path})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.seen.append("POST /v1/chat/completions")
        self.headers.append(dict(request.headers))
        if self.refuse_with is not None:
            error = {
                "message": "refused",
                "type": "rate_limit_error",
                "param": None,
                "code": self.refuse_with,
            }
            return web.json_response({"error": error}, status=self.refuse_with)
        body = await request.json()
        self.running += 1
        try:
            return await (self._stream if body.get("stream") else self._whole)(request, body["max_tokens"])
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, tokens: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for index in range(tokens):
            await asyncio.sleep(self.step_s)
            await response.write(_event({"delta": {"content": f"t{index} "}, "finish_reason": None}))
        await response.write(_event({"delta": {}, "finish_reason": "length"}))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _whole(self, _: web.Request, tokens: int) -> web.StreamResponse:
        await asyncio.sleep(self.step_s * tokens)
        choice = {"index": 0, "message": {"content": "t " * tokens}, "finish_reason": "length"}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": tokens}})


def _event(choice: dict[str, object]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"
