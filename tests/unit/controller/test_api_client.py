"""Calls to the API server: tried again where that may help, given up in time, and no write without the fence."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from paceline.controller import api_client as module
from paceline.controller.api_client import ApiClient
from paceline.controller.connection import Connection
from paceline.controller.errors import FenceLost, Rejected, Unavailable
from paceline.controller.fence import Fence
from paceline.controller.instruments import Instruments
from paceline.controller.resources import CHILD_OF_KIND

CONFIG_MAP = CHILD_OF_KIND["ConfigMap"]
BODY = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": "a"}, "data": {}}


class Server:
    """Answers with these (status, headers), then with 200; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.requests: list[tuple[str, str, bytes, str]] = []
        self.delay_s = 0.0
        self.asked = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(
            (request.method, str(request.rel_url), body, request.headers.get("Authorization", ""))
        )
        self.asked.set()
        await asyncio.sleep(self.delay_s)
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        return web.json_response({"kind": "Status", "reason": "x"}, status=status, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    handler = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler.handle)
    async with TestServer(app) as running:
        yield handler, str(running.make_url("")).rstrip("/")


@pytest.fixture
async def fence() -> Fence:
    held = Fence()
    held.extend(held.now_s + 60)
    return held


@pytest.fixture
async def client(server: tuple[Server, str], fence: Fence) -> AsyncIterator[ApiClient]:
    configuration = Configuration(host=server[1])
    configuration.api_key["BearerToken"] = "Bearer secret"
    made = ApiClient(Connection(configuration), fence=fence, instruments=Instruments())
    yield made
    await made.close()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_may_get_better_is_tried_again(
    client: ApiClient, server: tuple[Server, str], status: int
) -> None:
    server[0].answers = [(status, {}), (status, {})]
    await client.apply(CONFIG_MAP, BODY)
    assert len(server[0].requests) == 3


async def test_the_server_decides_how_long_to_wait(client: ApiClient, server: tuple[Server, str]) -> None:
    server[0].answers = [(429, {"Retry-After": "1"})]
    since_s = time.monotonic()
    await client.apply(CONFIG_MAP, BODY)
    assert time.monotonic() - since_s >= 1


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_what_was_refused_is_not_sent_again(
    client: ApiClient, server: tuple[Server, str], status: int
) -> None:
    server[0].answers = [(status, {})]
    with pytest.raises(Rejected):
        await client.apply(CONFIG_MAP, BODY)
    assert len(server[0].requests) == 1


async def test_a_call_ends_at_its_deadline(client: ApiClient, server: tuple[Server, str]) -> None:
    server[0].answers = [(503, {})] * 100
    since_s = time.monotonic()
    with pytest.raises(Unavailable):
        await client.call("GET", "/x", resource=CONFIG_MAP, deadline_s=0.5)
    assert time.monotonic() - since_s < 1.5


async def test_a_write_is_given_back_to_the_queue_long_before_that(
    client: ApiClient, server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_AGAIN_S", 0.3)
    server[0].answers = [(500, {})] * 100
    async with asyncio.timeout(module.DEADLINE_S / 2):
        with pytest.raises(Unavailable):
            await client.apply(CONFIG_MAP, BODY)
    assert len(server[0].requests) >= 2


async def test_a_server_that_does_not_answer_is_given_up(
    client: ApiClient, server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPT_S", 0.1)
    server[0].delay_s = 5
    since_s = time.monotonic()
    with pytest.raises(Unavailable):
        await client.call("GET", "/x", resource=CONFIG_MAP, deadline_s=0.5)
    assert time.monotonic() - since_s < 2


Write = Callable[[ApiClient], Awaitable[object]]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda c: c.apply(CONFIG_MAP, BODY), id="apply"),
        pytest.param(lambda c: c.create(CONFIG_MAP, BODY), id="create"),
        pytest.param(lambda c: c.delete(CONFIG_MAP, namespace="ns", name="a", uid="u"), id="delete"),
        pytest.param(lambda c: c.merge(CONFIG_MAP, {}, namespace="ns", name="a"), id="merge"),
    ],
)
async def test_no_write_leaves_without_the_fence_and_reads_do(
    client: ApiClient, server: tuple[Server, str], fence: Fence, write: Write
) -> None:
    fence.drop()
    with pytest.raises(FenceLost):
        await write(client)
    assert server[0].requests == []
    await client.get(CONFIG_MAP, namespace="ns", name="a")
    assert len(server[0].requests) == 1


async def test_a_fence_that_falls_between_two_attempts_stops_the_second(
    client: ApiClient, server: tuple[Server, str], fence: Fence
) -> None:
    server[0].answers = [(503, {})] * 100
    task = asyncio.create_task(client.apply(CONFIG_MAP, BODY))
    await asyncio.wait_for(server[0].asked.wait(), 5)
    fence.drop()
    with pytest.raises(FenceLost):
        await task
    assert len(server[0].requests) == 1


async def test_an_apply_is_ours_and_not_forced(client: ApiClient, server: tuple[Server, str]) -> None:
    await client.apply(CONFIG_MAP, BODY)
    method, url, body, authorization = server[0].requests[0]
    assert method == "PATCH"
    assert url == "/api/v1/namespaces/ns/configmaps/a?fieldManager=paceline&force=false"
    assert json.loads(body) == BODY
    assert authorization == "Bearer secret"


async def test_a_delete_names_the_uid(client: ApiClient, server: tuple[Server, str]) -> None:
    await client.delete(CONFIG_MAP, namespace="ns", name="a", uid="u-1")
    assert json.loads(server[0].requests[0][2])["preconditions"] == {"uid": "u-1"}
