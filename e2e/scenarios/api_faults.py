"""Stands between the operator and the API server, and answers in its place as a busy or a sick one does.

Called by `test_operator_faults.py` on the cluster, where the operator's pod is led through it, and by a test of the
operator on an API server alone.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}
PASSED_ON = ("Authorization", "Accept", "Content-Type")


@dataclass(slots=True)
class ApiFaults:
    """Set its fields at any time. Watches are refused like other calls, and not broken off."""

    port: int
    """Where it listens."""

    status: int | None = None
    """What a `share` of the calls is answered with. 409 answers writes only. Of the writes that 500 answers, every other
    one was carried out: the answer was lost."""

    share: float = 0.3
    delay_s: float = 0.0
    """Of every call."""

    answered: Counter[str] = field(default_factory=Counter)
    """Calls by what became of them: `passed`, `refused`, `lost`."""

    dice: random.Random = field(default_factory=lambda: random.Random(7))

    @property
    def spoiled(self) -> int:
        """Calls that were not answered as the API server answers."""
        return self.answered["refused"] + self.answered["lost"]

    def heal(self) -> None:
        self.status, self.delay_s = None, 0.0

    def fate_of(self, method: str) -> str:
        writes = method != "GET"
        if self.status is None or (self.status == 409 and not writes) or self.dice.random() >= self.share:
            return "passed"
        return "lost" if writes and self.status == 500 and self.dice.random() < 0.5 else "refused"

    def answer(self) -> web.Response:
        assert self.status is not None
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": self.status}
        headers = {"Retry-After": "1"} if self.status == 429 else {}
        return web.json_response(body | {"reason": REASONS[self.status]}, status=self.status, headers=headers)


@contextmanager
def api_faults(
    server: str, *, trusting: ssl.SSLContext, address: str = "127.0.0.1", shown: ssl.SSLContext | None = None
) -> Iterator[ApiFaults]:
    """In front of the API server at the URL ``server``, on a free port of ``address``; over TLS where there is a
    certificate to be ``shown``."""
    faults = ApiFaults(port=0)
    loop, started, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=trusting)
        async with (
            aiohttp.ClientSession(server, connector=connector) as upstream,
            _listening(faults, upstream, address=address, shown=shown) as faults.port,
        ):
            started.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(timeout=30)
    try:
        yield faults
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(timeout=30)


@asynccontextmanager
async def _listening(
    faults: ApiFaults, upstream: aiohttp.ClientSession, *, address: str, shown: ssl.SSLContext | None
) -> AsyncIterator[int]:
    """The port."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _pass(request, faults=faults, upstream=upstream)

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, address, 0, ssl_context=shown).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _pass(
    request: web.Request, *, faults: ApiFaults, upstream: aiohttp.ClientSession
) -> web.StreamResponse:
    body = await request.read()
    await asyncio.sleep(faults.delay_s)
    fate = faults.fate_of(request.method)
    faults.answered[fate] += 1
    if fate == "refused":
        return faults.answer()
    headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    async with upstream.request(
        request.method,
        request.path_qs,
        data=body or None,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as answer:
        if fate == "lost":
            await answer.read()
            return faults.answer()
        kind = answer.headers.get("Content-Type", "application/json")
        passed = web.StreamResponse(status=answer.status, headers={"Content-Type": kind})
        await passed.prepare(request)
        async for part in answer.content.iter_any():
            await passed.write(part)
        await passed.write_eof()
        return passed
