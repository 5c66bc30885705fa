"""The fence: a write leaves the process only while the lease is held by our own clock."""

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from paceline.controller.errors import FenceLost
from paceline.controller.fence import Fence, FencedBody


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_fence_that_was_never_extended_lets_nothing_pass() -> None:
    with pytest.raises(FenceLost):
        Fence().check()


def test_a_fence_ends_by_time_alone() -> None:
    clock = Clock()
    fence = Fence(clock)
    fence.extend(clock.now_s + 10)
    fence.check()
    clock.now_s += 10.1
    with pytest.raises(FenceLost):
        fence.check()


def test_an_older_renewal_never_shortens_a_newer_one() -> None:
    clock = Clock()
    fence = Fence(clock)
    fence.extend(clock.now_s + 10)
    fence.extend(clock.now_s + 5)
    assert fence.remaining_s == pytest.approx(10)


@pytest.mark.parametrize("held", [True, False])
async def test_a_body_reaches_the_server_only_under_the_fence(held: bool) -> None:
    """The last question comes when the bytes are handed to the socket, after everything was prepared."""
    bodies: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/", handler)
    fence = Fence()
    if held:
        fence.extend(fence.now_s + 60)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        body = FencedBody(b'{"a":1}', content_type="application/json", fence=fence)
        if held:
            async with session.patch(server.make_url("/"), data=body) as answer:
                assert answer.status == 200
            assert bodies == [b'{"a":1}']
        else:
            with pytest.raises(aiohttp.ClientError):
                await session.patch(server.make_url("/"), data=body)
            assert bodies == []
