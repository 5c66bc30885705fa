"""The emulated engine keeps the pace and the manners of a real one, and never hides what it is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from paceline_runtime.emulator import text
from tests.unit.runtime.pod import events, pod, until


@pytest.mark.parametrize(
    ("fields", "tokens", "reason"),
    [
        pytest.param({"max_tokens": 5}, 5, "length", id="cut"),
        pytest.param({}, text.NATURAL_TOKENS, "stop", id="ends by itself"),
        pytest.param({"max_tokens": 200}, text.NATURAL_TOKENS, "stop", id="ends before the limit"),
        pytest.param({"max_tokens": 100, "ignore_eos": True}, 100, "length", id="told not to end"),
        pytest.param({"max_tokens": 100, "min_tokens": 80}, 80, "stop", id="told to go on"),
        pytest.param({"max_completion_tokens": 3, "max_tokens": 9}, 3, "length", id="newer name wins"),
        pytest.param({"max_tokens": 10_000, "ignore_eos": True}, 150, "length", id="the service's limit"),
    ],
)
async def test_an_answer_ends_where_it_was_told_to(
    tmp_path: Path, fields: dict[str, Any], tokens: int, reason: str
) -> None:
    async with pod(tmp_path, emulation_step_s=0.0001, max_output_tokens=150) as one:
        _, body = await one.answer(stream_options={"include_usage": True}, **fields)
        *chunks, last, usage = events(body)
        assert usage["usage"]["completion_tokens"] == tokens
        assert last["choices"][0]["finish_reason"] == reason
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        assert body.endswith("data: [DONE]\n\n")


async def test_the_same_request_gets_the_same_answer_streamed_or_whole(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.0001) as one:
        _, streamed = await one.answer(max_tokens=30)
        _, whole = await one.answer(max_tokens=30, stream=False)
        said = "".join(event["choices"][0]["delta"]["content"] for event in events(streamed))
        assert said == json.loads(whole)["choices"][0]["message"]["content"]
        assert "emulated" in said


async def test_it_says_that_it_is_emulated(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        assert json.loads((await one.get("/v1/models"))[1])["data"][0]["emulated"] is True
        assert json.loads((await one.get("/paceline/info"))[1])["emulated"] is True
        assert "paceline_emulated 1.0" in (await one.get("/metrics"))[1]


async def test_a_token_takes_a_step(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.05) as one:
        since_s = monotonic()
        await one.answer(max_tokens=10)
        assert 0.5 <= monotonic() - since_s < 2


async def test_sequences_share_steps_and_the_rest_waits(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.05, max_sequences=2, max_queued_requests=8) as one:
        tasks = [asyncio.create_task(one.answer(max_tokens=4)) for _ in range(3)]
        await until(lambda: one.server.engine.running == 2)
        assert one.server.engine.waiting == 1
        assert all(status == 200 for status, _ in await asyncio.gather(*tasks))
        assert one.server.engine.unfinished() == 0


async def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.01, max_sequences=1, max_queued_requests=0) as one:
        async with one.ask(max_tokens=500, ignore_eos=True) as response:
            await response.content.readline()
        await one.idle()
        assert one.server.engine.unfinished() == 0
        assert (await one.answer(max_tokens=1))[0] == 200


async def test_usage_is_in_the_stream_only_if_asked_for(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.0001) as one:
        assert '"usage"' not in (await one.answer(max_tokens=3))[1]
        options = {"include_usage": True, "continuous_usage_stats": True}
        chunks = events((await one.answer(max_tokens=3, stream_options=options))[1])
        assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2, 3, 3]


async def test_an_idle_engine_rests(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.001) as one:
        await one.answer(max_tokens=2)
        await one.idle()
        await asyncio.sleep(0.05)
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not [name for name in names if name.startswith("StepLoop.")]
