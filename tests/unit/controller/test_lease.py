"""The lease is kept through conflicts that are none, and given up when it is another's."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from paceline.controller.api_client import ApiClient
from paceline.controller.connection import Connection
from paceline.controller.errors import FenceLost
from paceline.controller.fence import Fence
from paceline.controller.instruments import Instruments
from paceline.controller.lease import Lease, LeaseSettings

DURATION_S = 3
CONFLICTS = 3
"""One after the other, a period apart, are all that the fence has."""


class Server:
    """Stores the Lease; of the writes to it one in `CONFLICTS` + 1 is taken, the others are answered 409."""

    def __init__(self, holder: str) -> None:
        self.stored = {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": holder}}
        self.writes = 0

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self.writes += 1
            if self.writes % (CONFLICTS + 1):
                return web.json_response({"kind": "Status", "reason": "Conflict"}, status=409)
            self.stored = await request.json()
        return web.json_response(self.stored)


async def keep(server: Server, *, for_s: float) -> None:
    """The lease of `me`, whose fence has just been extended."""
    app, fence = web.Application(), Fence()
    app.router.add_route("*", "/{path:.*}", server.handle)
    settings = LeaseSettings(namespace="ns", identity="me", duration_s=DURATION_S)
    async with TestServer(app) as running:
        connection = Connection(Configuration(host=str(running.make_url("")).rstrip("/")))
        client = ApiClient(connection, fence=fence, instruments=Instruments())
        try:
            fence.extend(fence.now_s + settings.fence_s)
            async with asyncio.timeout(for_s):
                await Lease(client, settings=settings, fence=fence).keep()
        finally:
            await client.close()


async def test_three_of_four_renewals_that_are_refused_do_not_cost_the_lease() -> None:
    server = Server("me")
    with pytest.raises(TimeoutError):
        await keep(server, for_s=2 * DURATION_S)
    assert server.writes > CONFLICTS + 1


async def test_a_lease_that_another_one_holds_is_given_up() -> None:
    with pytest.raises(FenceLost, match="somebody"):
        await keep(Server("somebody"), for_s=DURATION_S)
