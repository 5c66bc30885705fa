"""What the middleware answers in place of the server, and that it passes everything else on untouched."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from paceline_core import Outcome
from paceline_runtime.vllm_plugin.middleware import App, Receive, Scope, Send
from tests.unit.runtime.pod import Pod, pod, until


async def overflow(one: Pod, *, stream: bool) -> tuple[list[int], str]:
    """Three requests for a pod that holds two; the statuses, and the body of the refusal."""
    answers = await asyncio.gather(
        *(one.answer(stream=stream, max_tokens=20, ignore_eos=True) for _ in range(3))
    )
    refused = next(body for status, body in answers if status != 200)
    return sorted(status for status, _ in answers), refused


@pytest.mark.parametrize("stream", [True, False])
async def test_a_full_queue_answers_429_and_not_503(tmp_path: Path, stream: bool) -> None:
    async with pod(tmp_path, max_sequences=1, max_queued_requests=1) as one:
        statuses, refusal = await overflow(one, stream=stream)
        await one.idle()
        assert statuses == [200, 200, 429]
        assert json.loads(refusal)["error"]["code"] == 429
        assert one.count(Outcome.REJECTED) == 1
        assert one.count(Outcome.GOOD) == 2


async def test_a_refusal_says_when_to_come_back(tmp_path: Path) -> None:
    async with pod(tmp_path, max_sequences=1, max_queued_requests=0, emulation_step_s=0.05) as one:
        first = asyncio.create_task(one.answer(max_tokens=20, ignore_eos=True))
        await until(lambda: one.server.engine.unfinished() == 1)
        async with one.ask() as refused:
            assert refused.status == 429
            assert refused.headers["retry-after"] == "1"
        assert (await first)[0] == 200


async def test_after_an_overflow_the_next_request_is_answered_at_once(tmp_path: Path) -> None:
    async with pod(tmp_path, max_sequences=1, max_queued_requests=1) as one:
        await overflow(one, stream=True)
        since_s = time.monotonic()
        status, _ = await one.answer(max_tokens=1)
        assert status == 200
        assert time.monotonic() - since_s < 2


async def test_the_limit_of_queued_tokens_refuses_too(tmp_path: Path) -> None:
    async with pod(tmp_path, max_sequences=1, max_queued_tokens=10, emulation_step_s=3600) as one:
        tasks = []
        for _ in range(2):  # one runs, one waits with 104 tokens
            tasks.append(asyncio.create_task(one.answer(words="x" * 400)))
            await until(lambda: one.server.engine.unfinished() == len(tasks))
        assert (await one.answer())[0] == 429
        assert one.count(Outcome.REJECTED) == 1
        for task in tasks:
            task.cancel()


class Says:
    """A server that gives one answer, in the given parts."""

    def __init__(self, status: int, *bodies: bytes, content_type: bytes = b"application/json") -> None:
        self._status = status
        self._bodies = bodies
        self._content_type = content_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", self._content_type)]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        for body in self._bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def error(code: int, kind: str) -> bytes:
    return json.dumps({"error": {"message": "m", "type": kind, "param": None, "code": code}}).encode()


async def answer_of(tmp_path: Path, server: App) -> tuple[int, str, dict[tuple[str, str], int]]:
    async with pod(tmp_path, wrap=lambda _: server) as one:
        status, body = await one.answer()
        await one.idle()
        return status, body, one.counted


SSE = b"text/event-stream"


async def test_an_error_before_the_first_token_of_a_stream_is_a_status(tmp_path: Path) -> None:
    """vLLM checks its queue once more after it has answered 200: the refusal must not hide in the stream."""
    first = b"data: " + error(503, "Service Unavailable") + b"\n\n"
    server = Says(200, first, b"data: [DONE]\n\n", content_type=SSE)
    status, body, counted = await answer_of(tmp_path, server)
    assert status == 429
    assert "[DONE]" not in body
    assert counted == {("all", "rejected"): 1}


async def test_an_engine_that_fails_before_the_first_token_answers_500(tmp_path: Path) -> None:
    first = b"data: " + error(500, "InternalServerError") + b"\n\n"
    server = Says(200, first, b"data: [DONE]\n\n", content_type=SSE)
    status, _, counted = await answer_of(tmp_path, server)
    assert status == 500
    assert counted == {("all", "failed"): 1}


async def test_a_503_of_another_kind_stays_503(tmp_path: Path) -> None:
    status, body, counted = await answer_of(tmp_path, Says(503, error(503, "ServiceUnavailableError")))
    assert status == 503
    assert json.loads(body)["error"]["type"] == "ServiceUnavailableError"
    assert counted == {("all", "failed"): 1}


async def test_a_503_that_is_not_json_stays_as_it_is(tmp_path: Path) -> None:
    status, body, _ = await answer_of(tmp_path, Says(503, b"<html>", content_type=b"text/html"))
    assert (status, body) == (503, "<html>")


async def test_the_parts_of_a_stream_are_passed_on_byte_for_byte(tmp_path: Path) -> None:
    parts = [
        b": comment\n\n",
        b'data: {"choices":[{"delta":{"content":"\xc3\xa9"}}]}\n\n',
        b"data: [DONE]\n\n",
    ]
    async with (
        pod(tmp_path, wrap=lambda _: Says(200, *parts, content_type=SSE)) as one,
        one.ask() as response,
    ):
        assert await response.read() == b"".join(parts)
        assert response.headers["content-type"] == "text/event-stream"


async def test_a_stream_is_not_held_back(tmp_path: Path) -> None:
    async with (
        pod(tmp_path, emulation_step_s=0.1) as one,
        one.ask(max_tokens=20, ignore_eos=True) as response,
    ):
        first = await response.content.readline()
        assert first.startswith(b"data: ")
        assert one.serving.lifecycle.in_flight == 1


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"words": "x" * 8000}, id="chat"),
        pytest.param({"words": "x" * 8000, "stream": False}, id="in one piece"),
        pytest.param({"words": "x" * 8000, "path": "/v1/completions"}, id="text"),
        pytest.param({"words": [1] * 2000, "path": "/v1/completions"}, id="token ids"),
        pytest.param({"input": "x" * 8000, "path": "/v1/responses"}, id="responses, text"),
        pytest.param(
            {"input": [{"role": "user", "content": "x" * 8000}], "path": "/v1/responses"},
            id="responses, items",
        ),
    ],
)
async def test_a_prompt_longer_than_the_service_takes_is_413(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with pod(tmp_path, max_prompt_tokens=1500) as one:
        status, body = await one.answer(**fields)
        await one.idle()
        assert status == 413
        assert "1500" in json.loads(body)["error"]["message"]
        assert one.counted == {("all", "client_error"): 1}


async def test_a_long_body_within_the_limit_is_answered_as_it_was_sent(tmp_path: Path) -> None:
    async with pod(tmp_path, max_prompt_tokens=1500) as one:
        status, body = await one.answer(words="x" * 5000, max_tokens=2, stream=False, path="/v1/completions")
        assert status == 200
        assert json.loads(body)["usage"]["prompt_tokens"] == 1250


async def test_a_body_in_many_parts_is_counted_whole(tmp_path: Path) -> None:
    async def parts(text: str) -> Any:
        for start in range(0, len(text), 1000):
            yield text[start : start + 1000].encode()

    request = json.dumps({"model": "m", "prompt": "x" * 8000})
    async with pod(tmp_path, max_prompt_tokens=1500) as one:
        headers = {"content-type": "application/json"}
        url = f"{one.url}/v1/completions"
        async with one.http.post(url, data=parts(request), headers=headers) as response:
            assert response.status == 413
