"""A pod leaves without losing a request: over TCP and the admin socket, with routers that are real
servers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from paceline_core import Outcome
from paceline_runtime.vllm_plugin.drain import DrainTimes
from paceline_runtime.vllm_plugin.routers import Routers
from tests.unit.runtime.pod import Pod, pod, until

ME = "10.1.2.3:8000"
QUICK = DrainTimes(unrouting_bound_s=5, quiet_s=0.2, ask_every_s=0.05)


class Router:
    """Answers /workers as a gate does; `workers` may change at any time."""

    def __init__(self, *workers: str) -> None:
        self.workers = list(workers)
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"workers": self.workers}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def listening(router: Router, *, host: str, port: int = 0) -> AsyncIterator[int]:
    server = await asyncio.start_server(router.answer, host, port)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def leaving_pod(
    folder: Path, router: Router, *, times: DrainTimes = QUICK, step_s: float = 0.005
) -> AsyncIterator[Pod]:
    """A pod whose routers are `router` alone."""
    async with listening(router, host="127.0.0.1") as port:
        routers = Routers("127.0.0.1", port=port)
        async with pod(folder, routers=routers, address=ME, times=times, emulation_step_s=step_s) as one:
            yield one


async def test_while_a_router_lists_it_the_pod_is_not_ready_and_accepts(tmp_path: Path) -> None:
    router = Router(ME)
    async with leaving_pod(tmp_path, router) as one:
        await one.drain()
        await until(lambda: router.asked > 3)
        assert (await one.get("/ready"))[0] == 503
        assert (await one.answer(max_tokens=2))[0] == 200
        assert (await one.state())["phase"] == "unrouting"
        assert one.count(Outcome.GOOD) == 1


async def test_once_no_router_lists_it_new_requests_are_refused(tmp_path: Path) -> None:
    router = Router(ME)
    async with leaving_pod(tmp_path, router) as one:
        await one.drain()
        await until(lambda: router.asked > 1)
        router.workers.clear()
        await one.serving.lifecycle.drained()
        async with one.ask() as refused:
            assert refused.status == 429
            assert refused.headers["retry-after"] == "1"
        assert one.count(Outcome.REJECTED) == 1


async def test_a_stream_begun_before_ends_with_done(tmp_path: Path) -> None:
    async with leaving_pod(tmp_path, Router(), step_s=0.03) as one:
        stream = asyncio.create_task(one.answer(max_tokens=40, ignore_eos=True))
        await until(lambda: one.server.engine.unfinished() == 1)
        await one.drain()
        await until(lambda: not one.serving.lifecycle.accepts)
        assert (await one.answer())[0] == 429
        status, body = await stream
        assert status == 200
        assert '"finish_reason":"length"' in body
        assert body.endswith("data: [DONE]\n\n")
        await one.serving.lifecycle.drained()
        assert (await one.state()) | {"lastArrivalAgeSeconds": 0} == {
            "phase": "drained",
            "inFlight": 0,
            "lastArrivalAgeSeconds": 0,
        }


async def test_an_arrival_starts_the_quiet_time_again(tmp_path: Path) -> None:
    times = DrainTimes(unrouting_bound_s=20, quiet_s=0.5, ask_every_s=0.02)
    async with leaving_pod(tmp_path, Router(), times=times) as one:
        since_s = time.monotonic()
        await one.drain()
        while time.monotonic() - since_s < 1.0:
            assert (await one.answer(max_tokens=1))[0] == 200
        last_s = time.monotonic()
        await one.serving.lifecycle.drained()
        assert time.monotonic() - last_s >= 0.4


async def test_a_router_that_does_not_answer_is_waited_for_no_longer_than_the_bound(tmp_path: Path) -> None:
    times = DrainTimes(unrouting_bound_s=0.5, quiet_s=0.05, ask_every_s=0.05)
    nobody = Routers("127.0.0.1", port=1)
    async with pod(tmp_path, routers=nobody, address=ME, times=times) as one:
        since_s = time.monotonic()
        await one.drain()
        await one.serving.lifecycle.drained()
        assert 0.4 < time.monotonic() - since_s < 5


async def test_where_nobody_routes_the_pod_stops_accepting_at_once(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        await one.drain()
        await one.serving.lifecycle.drained()
        assert (await one.answer())[0] == 429


async def test_to_drain_twice_changes_nothing(tmp_path: Path) -> None:
    router = Router(ME)
    async with leaving_pod(tmp_path, router) as one:
        await one.drain()
        await one.drain()
        await until(lambda: router.asked > 2)
        assert (await one.state())["phase"] == "unrouting"
        router.workers.clear()
        await one.serving.lifecycle.drained()


async def test_a_request_that_never_ends_holds_the_drain_no_longer_than_the_longest_request(
    tmp_path: Path,
) -> None:
    async with pod(tmp_path, max_request_s=0.3, emulation_step_s=3600) as one:
        stuck = asyncio.create_task(one.answer())
        await until(lambda: one.server.engine.unfinished() == 1)
        await one.drain()
        await asyncio.wait_for(one.serving.lifecycle.drained(), 5)
        assert (await one.state())["inFlight"] == 1
        stuck.cancel()


async def test_a_pod_that_leaves_while_loading_never_becomes_ready(tmp_path: Path) -> None:
    async with pod(tmp_path, open_now=False) as one:
        await one.drain()
        await one.serving.lifecycle.drained()
        async with one.admin.post("http://pod/open", json={"stages": {"ready": 1}}) as opened:
            assert opened.status == 200
        assert (await one.get("/ready"))[0] == 503


async def test_the_serving_port_has_no_admin_routes(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        for method, path in (("POST", "/drain"), ("POST", "/open"), ("PUT", "/targets"), ("GET", "/state")):
            async with one.http.request(method, one.url + path) as response:
                assert response.status == 404, path
        assert (await one.get("/ready"))[0] == 200


async def test_the_admin_socket_is_its_owners_alone(tmp_path: Path) -> None:
    async with pod(tmp_path):
        assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600


async def test_absent_means_absent_from_every_router(tmp_path: Path) -> None:
    knows, forgot = Router("10.9.9.9:8000", ME), Router("10.9.9.9:8000")
    async with listening(knows, host="127.0.0.1") as port, listening(forgot, host="127.0.0.2", port=port):
        both = Routers("routers", port=port, resolve=addresses("127.0.0.1", "127.0.0.2"))
        assert await both.list_worker(ME) is True
        knows.workers.remove(ME)
        assert await both.list_worker(ME) is False


async def test_one_router_that_does_not_answer_makes_absence_unknown(tmp_path: Path) -> None:
    async with listening(Router(), host="127.0.0.1") as port:
        routers = Routers("routers", port=port, resolve=addresses("127.0.0.1", "127.0.0.3"))
        assert await routers.list_worker(ME) is None


async def test_a_name_without_addresses_makes_absence_unknown() -> None:
    assert await Routers("no-such-name.invalid").list_worker(ME) is None
    assert await Routers("routers", resolve=addresses()).list_worker(ME) is None


def addresses(*hosts: str) -> Callable[[str], Awaitable[list[str]]]:
    async def resolve(_: str) -> list[str]:
        return list(hosts)

    return resolve


async def test_a_socket_left_behind_by_a_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").touch()
    async with pod(tmp_path) as one:
        assert (await one.state())["phase"] == "serving"


async def test_a_pause_ends_with_the_last_request(tmp_path: Path) -> None:
    async with leaving_pod(tmp_path, Router(), step_s=0.02) as one:
        stream = asyncio.create_task(one.answer(max_tokens=30, ignore_eos=True))
        await until(lambda: one.server.engine.unfinished() == 1)
        assert await one.pause("tp=1,dp=1,change=3") == 202
        assert (await one.get("/ready"))[0] == 503
        await one.serving.lifecycle.drained()
        assert (await stream)[1].endswith("data: [DONE]\n\n")
        assert one.serving.refused_layout is None


async def test_a_pause_whose_requests_do_not_end_in_time_serves_on_and_says_why(tmp_path: Path) -> None:
    async with leaving_pod(tmp_path, Router(), step_s=60) as one:
        stream = asyncio.create_task(one.answer(max_tokens=30))
        await until(lambda: one.server.engine.unfinished() == 1)
        await one.pause("tp=1,dp=1,change=3,drain=1")
        await until(lambda: one.serving.refused_layout is not None)
        assert (await one.get("/ready"))[0] == 200
        refused = json.loads((await one.get("/paceline/info"))[1])["refusedLayout"]
        assert refused["order"] == "tp=1,dp=1,change=3,drain=1"
        assert "1 requests still ran" in refused["message"]
        stream.cancel()


async def test_a_drain_that_comes_during_a_pause_is_for_good(tmp_path: Path) -> None:
    async with leaving_pod(tmp_path, Router(), step_s=0.05) as one:
        stream = asyncio.create_task(one.answer(max_tokens=60, ignore_eos=True))
        await until(lambda: one.server.engine.unfinished() == 1)
        await one.pause("tp=1,dp=1,change=3,drain=1")
        await until(lambda: not one.serving.lifecycle.accepts)
        await one.drain()
        await one.serving.lifecycle.drained()
        assert (await stream)[1].endswith("data: [DONE]\n\n")
        assert (await one.state())["phase"] == "drained"


async def test_a_pause_without_an_order_is_refused(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        assert await one.pause("tp=4") == 400
        assert (await one.get("/ready"))[0] == 200
