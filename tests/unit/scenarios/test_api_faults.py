"""The proxy in front of an API server passes calls on as they are, and spoils the share that it is told to."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from e2e.cluster.certificates import Authority, Party
from e2e.scenarios.api_faults import ApiFaults, api_faults

CALLS = 40


@dataclass(slots=True)
class Server:
    """Remembers what reached it. A GET of /watch is answered in two parts, the second only once `more` is set."""

    url: str = ""
    reached: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization")
        self.reached.append((request.method, request.path_qs, await request.text(), token))
        if request.path != "/watch":
            return web.json_response({"kind": "Made"}, status=201)
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b"one\n")
        await self.more.wait()
        await stream.write(b"two\n")
        return stream


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.ensure([Party("apiserver", "/CN=kube-apiserver", ("IP:127.0.0.1",))])
    return authority


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate("ca")))


@pytest.fixture
def shown(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.certificate("apiserver"), authority.key("apiserver"))
    return context


@pytest.fixture
async def server(shown: ssl.SSLContext) -> AsyncIterator[Server]:
    server, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=shown).start()
    server.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
def faults(server: Server, trusting: ssl.SSLContext, shown: ssl.SSLContext) -> Iterator[ApiFaults]:
    with api_faults(server.url, trusting=trusting, shown=shown) as made:
        yield made


@pytest.fixture
async def client(faults: ApiFaults, trusting: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=trusting)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{faults.port}", connector=connector) as session:
        yield session


async def statuses(client: aiohttp.ClientSession, method: str) -> list[int]:
    answers = [await client.request(method, "/api", data=b"{}") for _ in range(CALLS)]
    return [one.status for one in answers]


async def test_a_healthy_one_passes_everything_on(server: Server, client: aiohttp.ClientSession) -> None:
    headers = {"Authorization": "Bearer x"}
    async with client.post("/api/v1/pods?watch=0&x=1", data=b'{"a": 1}', headers=headers) as answer:
        assert (answer.status, await answer.json()) == (201, {"kind": "Made"})
    assert server.reached == [("POST", "/api/v1/pods?watch=0&x=1", '{"a": 1}', "Bearer x")]


async def test_a_watch_is_passed_on_as_it_comes(server: Server, client: aiohttp.ClientSession) -> None:
    async with client.get("/watch") as answer:
        assert await answer.content.readline() == b"one\n"
        server.more.set()
        assert await answer.content.readline() == b"two\n"


async def test_what_is_refused_does_not_arrive(
    server: Server, client: aiohttp.ClientSession, faults: ApiFaults
) -> None:
    faults.status, faults.share = 429, 1.0
    async with client.get("/api") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (await answer.json())["reason"] == "TooManyRequests"
    assert server.reached == []


async def test_only_a_share_is_spoiled_until_it_is_healed(
    client: aiohttp.ClientSession, faults: ApiFaults
) -> None:
    faults.status = 429
    assert set(await statuses(client, "GET")) == {201, 429}
    assert faults.spoiled == faults.answered["refused"] == CALLS - faults.answered["passed"]
    faults.heal()
    assert set(await statuses(client, "GET")) == {201}


async def test_conflicts_are_of_writes_alone(client: aiohttp.ClientSession, faults: ApiFaults) -> None:
    faults.status, faults.share = 409, 1.0
    assert set(await statuses(client, "GET")) == {201}
    assert set(await statuses(client, "PATCH")) == {409}


async def test_some_writes_that_an_error_answers_were_carried_out(
    server: Server, client: aiohttp.ClientSession, faults: ApiFaults
) -> None:
    faults.status, faults.share = 500, 1.0
    assert set(await statuses(client, "POST")) == {500}
    assert len(server.reached) == faults.answered["lost"]
    assert 0 < faults.answered["lost"] < CALLS


async def test_a_slow_one_answers_late(client: aiohttp.ClientSession, faults: ApiFaults) -> None:
    faults.delay_s = 0.3
    since_s = time.monotonic()
    async with client.get("/api") as answer:
        assert answer.status == 201
    assert time.monotonic() - since_s >= 0.3


async def test_without_the_certificate_it_is_not_taken_for_the_api_server(faults: ApiFaults) -> None:
    async with aiohttp.ClientSession() as stranger:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await stranger.get(f"https://127.0.0.1:{faults.port}/api")
