"""Stands between the operator and the API server, and answers in its place as a busy or a sick one does."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from tests.integration.controller.cluster import Cluster

REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}
PASSED_ON = ("Authorization", "Accept", "Content-Type")


@dataclass(slots=True)
class ApiFaults:
    """Set its fields at any time. Watches are refused like other calls, and not broken off."""

    kubeconfig: Path
    """Of the way through it."""

    status: int | None = None
    """What a `share` of the calls is answered with. 409 answers writes only. Of the writes that 500 answers, every other
    one was carried out: the answer was lost."""

    share: float = 0.3
    delay_s: float = 0.0
    """Of every call."""

    answered: Counter[str] = field(default_factory=Counter)
    """Calls by what became of them: `passed`, `refused`, `lost`."""

    dice: random.Random = field(default_factory=lambda: random.Random(7))

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
def api_faults(cluster: Cluster, folder: Path) -> Iterator[ApiFaults]:
    faults = ApiFaults(folder / "through-faults.kubeconfig")
    loop, started, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with _listening(cluster, faults) as port:
            _write_kubeconfig(cluster, faults.kubeconfig, port=port)
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
async def _listening(cluster: Cluster, faults: ApiFaults) -> AsyncIterator[int]:
    connector = aiohttp.TCPConnector(limit=0, ssl=cluster.context)
    async with aiohttp.ClientSession(cluster.plane.url, connector=connector) as upstream:

        async def handle(request: web.Request) -> web.StreamResponse:
            return await _pass(request, faults=faults, upstream=upstream)

        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
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


def _write_kubeconfig(cluster: Cluster, path: Path, *, port: int) -> None:
    config = yaml.safe_load(cluster.plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
    path.write_text(yaml.safe_dump(config))
