"""A pod's own word: asked once when it is Ready, never waited for, and unknown where it does not answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from paceline.controller import pod_info as module
from paceline.controller.pod_info import PodInfoSource
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Pod

KEY = ServiceKey("ns", "chat")
READY = Pod.parse(
    {
        "metadata": {
            "name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"paceline.dev/component": "engine"},
        },
        "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }
)  # fmt: skip


@pytest.fixture
async def requests(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    seen: list[str] = []

    async def info(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({"version": "1", "emulated": True, "model": {"attentionHeads": 9}})

    app = web.Application()
    app.router.add_get("/paceline/info", info)
    async with TestServer(app) as server:
        monkeypatch.setattr(module, "ENGINE_PORT", server.port)
        yield seen


async def test_a_ready_engine_is_asked_once(requests: list[str]) -> None:
    news: asyncio.Queue[ServiceKey] = asyncio.Queue()
    source = PodInfoSource(on_news=news.put_nowait)
    assert source.of(KEY, READY) is None
    assert source.of(KEY, READY) is None
    assert await asyncio.wait_for(news.get(), 5) == KEY
    info = source.of(KEY, READY)
    assert info is not None
    assert (info.attention_heads, info.emulated, info.kv_heads) == (9, True, None)
    assert requests == ["/paceline/info"]
    await source.close()


async def test_what_a_pod_said_before_it_was_away_is_old_until_it_has_said_it_again(
    requests: list[str],
) -> None:
    news: asyncio.Queue[ServiceKey] = asyncio.Queue()
    source = PodInfoSource(on_news=news.put_nowait)
    source.of(KEY, READY)
    await asyncio.wait_for(news.get(), 5)
    back = replace(READY, ready_since_s=1.0)
    for pod, is_old in (
        (READY, False),
        (replace(READY, ready=False, ready_since_s=None), False),
        (back, True),
    ):
        info = source.of(KEY, pod)
        assert info is not None
        assert info.is_old is is_old
    await asyncio.wait_for(news.get(), 5)
    again = source.of(KEY, back)
    assert again is not None
    assert not again.is_old
    assert len(requests) == 2
    await source.close()


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(replace(READY, ready=False), id="not Ready"),
        pytest.param(replace(READY, component="router"), id="a router"),
        pytest.param(replace(READY, ip=None), id="no address"),
        pytest.param(replace(READY, deleting=True), id="on its way out"),
    ],
)
async def test_others_are_not_asked(requests: list[str], pod: Pod) -> None:
    source = PodInfoSource(on_news=lambda _: None)
    assert source.of(KEY, pod) is None
    await asyncio.sleep(0.1)
    assert requests == []
    await source.close()


async def test_a_pod_that_does_not_answer_is_not_asked_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENGINE_PORT", 1)
    told: list[ServiceKey] = []
    source = PodInfoSource(on_news=told.append)
    for _ in range(5):
        assert source.of(KEY, READY) is None
        await asyncio.sleep(0.05)
    assert told == []
    assert source._asking == {}
    await source.close()
