"""What all pods request is known by node, follows every event, and is unknown while it cannot be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from paceline.controller.api_client import ApiClient
from paceline.controller.fence import Fence
from paceline.controller.instruments import Instruments
from paceline.controller.pod_requests import PodRequests

GPU = "nvidia.com/gpu"


def pod(uid: str, *, node: str | None = "a", gpus: int = 1, phase: str = "Running", version: int = 1) -> Any:
    return {
        "metadata": {"uid": uid, "name": uid, "namespace": "x", "resourceVersion": str(version)},
        "spec": {
            **({"nodeName": node} if node else {}),
            "containers": [{"resources": {"requests": {GPU: str(gpus)}}}],
        },
        "status": {"phase": phase},
    }


class ApiServer:
    """Lists and watches pods, as told."""

    def __init__(self) -> None:
        self.listed = [pod("one", gpus=2), pod("two", node="b"), pod("waits", node=None)]
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.lists = 0
        self.status = 200
        self.server = ""
        self.asked_versions: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.json_response({"message": "no"}, status=self.status)
        if "watch" not in request.query:
            self.lists += 1
            return web.json_response({"items": self.listed, "metadata": {"resourceVersion": "10"}})
        self.asked_versions.append(request.query["resourceVersion"])
        stream = web.StreamResponse()
        await stream.prepare(request)
        while (event := await self.events.get()) is not None:
            text = json.dumps(event).encode() + b"\n"
            # In two parts, as a network may deliver it.
            await stream.write(text[:7])
            await stream.write(text[7:])
        return stream

    def session(self, *, connections: int) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections))


@asynccontextmanager
async def running() -> AsyncIterator[tuple[ApiServer, PodRequests]]:
    api, app = ApiServer(), web.Application()
    app.router.add_get("/api/v1/pods", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = ApiClient(api, fence=Fence(), instruments=Instruments())  # type: ignore[arg-type]
    requests = PodRequests(client, api)  # type: ignore[arg-type]
    task = asyncio.create_task(requests.run())
    try:
        yield api, requests
    finally:
        for _ in range(4):
            api.events.put_nowait(None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        await runner.cleanup()


async def until(holds: Any) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_nobody_is_asked_before_somebody_wants_to_know() -> None:
    async with running() as (api, requests):
        await asyncio.sleep(0.1)
        assert api.lists == 0
        assert requests.by_node() is None
        await until(lambda: requests.by_node() is not None)
        assert requests.by_node() == {"a": {GPU: 2.0}, "b": {GPU: 1.0}}


async def test_it_follows_pods_as_they_come_move_end_and_go() -> None:
    async with running() as (api, requests):
        requests.by_node()
        await until(lambda: requests.by_node() is not None)
        for kind, changed in (
            ("ADDED", pod("three", node="b", gpus=4, version=11)),
            ("MODIFIED", pod("waits", node="a", version=12)),
            ("MODIFIED", pod("one", gpus=2, phase="Succeeded", version=13)),
            ("BOOKMARK", {"metadata": {"resourceVersion": "14"}}),
            ("DELETED", pod("two", node="b", version=15)),
        ):
            await api.events.put({"type": kind, "object": changed})
        await until(lambda: requests.by_node() == {"a": {GPU: 1.0}, "b": {GPU: 4.0}})
        # The watch ends, as the API server ends each one, and goes on where it was.
        await api.events.put(None)
        await until(lambda: api.asked_versions == ["10", "15"])
        assert api.lists == 1


async def test_a_version_that_is_gone_means_a_new_list() -> None:
    async with running() as (api, requests):
        requests.by_node()
        await until(lambda: requests.by_node() is not None)
        api.listed = [pod("four", node="c")]
        await api.events.put({"type": "ERROR", "object": {"code": 410, "metadata": {}}})
        await until(lambda: requests.by_node() == {"c": {GPU: 1.0}})


@pytest.mark.parametrize("status", [403, 404])
async def test_what_may_not_be_read_is_unknown(status: int) -> None:
    async with running() as (api, requests):
        api.status = status
        requests.by_node()
        await asyncio.sleep(0.2)
        assert requests.by_node() is None
