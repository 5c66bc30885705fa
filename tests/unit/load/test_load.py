"""The open loop is open, reads to the end, and calls a failure a failure."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from e2e.load import ForeignTarget, Load, OpenLoop, Summary
from e2e.load import target as load_target
from e2e.load.arrivals import arrivals_s

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], Awaitable[str]]


def test_a_seed_is_a_schedule() -> None:
    def first(seed: int) -> list[float]:
        return list(itertools.islice(arrivals_s(rate_per_s=8, process="poisson", seed=seed), 4000))

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(1) == sorted(first(1))
    assert 4000 / first(1)[-1] == pytest.approx(8, rel=0.1)
    constant = itertools.islice(arrivals_s(rate_per_s=4, process="constant", seed=0), 3)
    assert list(constant) == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost", "http://10.96.3.4/v1", "http://10.99.0.1"]
)
def test_load_may_go_to_this_machine_and_its_cluster(url: str) -> None:
    load_target.check(url)


@pytest.mark.parametrize(
    "url",
    ["http://8.8.8.8", "http://10.0.0.1", "http://192.168.1.1", "https://127.0.0.1", "ftp://127.0.0.1", "x"],
)
def test_load_goes_nowhere_else(url: str) -> None:
    with pytest.raises(ForeignTarget):
        OpenLoop(url, model="m", load=Load(rate_per_s=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_per_s": 0},
        {"rate_per_s": 1e6},
        {"max_duration_s": 1e6},
        {"max_tokens": (5, 1)},
        {"prompts": ()},
    ],
)
def test_a_load_has_bounds(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Load(**{"rate_per_s": 1, **wrong})  # type: ignore[arg-type]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners = []

    async def start(answer: Answer) -> str:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


def stream(*events: object, done: bool = True, status: int = 200, pause_s: float = 0) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await asyncio.sleep(pause_s)
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if done:
            await response.write(b"data: [DONE]\n\n")
        return response

    return answer


def delta(text: str | None = None, finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]}


WHOLE = (delta("a"), delta("b"), delta("c"), delta(finish="length"))


async def some(url: str, **load: object) -> OpenLoop:
    """A few requests, each read to its end."""
    loop = OpenLoop(url, model="m", load=Load(rate_per_s=100, process="constant", **load))  # type: ignore[arg-type]
    async with loop.running():
        await asyncio.sleep(0.05)
    assert loop.records
    return loop


async def one(url: str, **load: object) -> Summary:
    return (await some(url, **load)).summary()


async def test_a_whole_stream_succeeds(serve: Serve) -> None:
    usage = {"choices": [], "usage": {"completion_tokens": 5}}
    loop = await some(await serve(stream(*WHOLE, usage, pause_s=0.05)))
    assert loop.summary().failed == 0
    assert loop.summary().output_tokens == 5 * len(loop.records)
    for record in loop.records:
        assert record.started_s is not None
        assert record.first_token_s is not None
        assert record.last_token_s is not None
        assert record.chunks == 3
        assert record.ttft_s == record.first_token_s - record.started_s >= 0.05
        # Four gaps between the five tokens that the service counted, though they came in three chunks.
        assert record.tpot_s == (record.last_token_s - record.first_token_s) / 4


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(stream(*WHOLE, done=False), "without [DONE]", id="no-done"),
        pytest.param(stream(delta("a")), "without a finish_reason", id="no-finish-reason"),
        pytest.param(stream(), "without a finish_reason", id="nothing"),
        pytest.param(
            stream(delta("a"), {"error": {"code": "x"}}), "error event after status 200", id="error"
        ),
        pytest.param(stream(*WHOLE, status=429), "status 429", id="429"),
        pytest.param(stream({"nonsense": 1}), "not an OpenAI answer", id="nonsense"),
        pytest.param(stream(*WHOLE, pause_s=1), "not ended after 0.3 s", id="slow"),
    ],
)
async def test_everything_else_fails_with_its_reason(serve: Serve, answer: Answer, reason: str) -> None:
    summary = await one(await serve(answer), timeout_s=0.3)
    assert summary.ok == 0
    assert all(reason in failure for failure in summary.failures), summary.failures


async def test_a_broken_connection_fails(serve: Serve) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: " + json.dumps(delta("a")).encode() + b"\n\n")
        assert request.transport is not None
        request.transport.abort()
        return response

    summary = await one(await serve(cut))
    assert summary.ok == 0
    assert all("connection lost" in failure for failure in summary.failures)
    summary = await one("http://127.0.0.1:1")
    assert all("not connected" in failure for failure in summary.failures)


async def test_arrivals_do_not_wait_for_answers(serve: Serve) -> None:
    url = await serve(stream(*WHOLE, pause_s=0.5))
    loop = OpenLoop(url, model="m", load=Load(rate_per_s=50, process="constant"))
    async with loop.running():
        await asyncio.sleep(1.0)
        live = loop.live()
        assert live.sent > 30
        assert live.ended == 0
        assert live.in_flight == live.sent
    assert loop.summary().failed == 0
    assert loop.live().in_flight == 0


async def test_leaving_by_an_error_does_not_wait(serve: Serve) -> None:
    loop = OpenLoop(await serve(stream(*WHOLE, pause_s=30)), model="m", load=Load(rate_per_s=50))

    async def scenario() -> None:
        async with loop.running():
            await asyncio.sleep(0.5)
            raise RuntimeError("scenario")

    with pytest.raises(RuntimeError, match="scenario"):
        await asyncio.wait_for(scenario(), 5)
    assert all(record.failure for record in loop.records)
