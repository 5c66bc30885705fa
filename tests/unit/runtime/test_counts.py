"""Every request is counted once, as what it was: over TCP, against the emulated engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from paceline_core import ELAPSED_HEADER, Outcome, Targets
from paceline_runtime.vllm_plugin.middleware import App, Message, Receive, Scope, Send
from tests.unit.runtime.pod import MODEL, Pod, events, pod, target, until


def only(outcome: Outcome, *, latency_class: str = "all", count: int = 1) -> dict[tuple[str, str], int]:
    return {(latency_class, outcome.value): count}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [True, False])
async def test_within_both_targets_is_good(tmp_path: Path, path: str, stream: bool) -> None:
    async with pod(tmp_path) as one:
        status, _ = await one.answer(path=path, stream=stream, max_tokens=5)
        await one.idle()
        assert status == 200
        assert one.counted == only(Outcome.GOOD)


@pytest.mark.parametrize(
    ("ttft_ms", "tpot_ms", "outcome"),
    [
        pytest.param(1, 3_600_000, Outcome.LATE_TTFT, id="first token late"),
        pytest.param(3_600_000, 1, Outcome.LATE_TPOT, id="later tokens late"),
        pytest.param(1, 1, Outcome.LATE_BOTH, id="both late"),
    ],
)
async def test_lateness_is_told_apart(tmp_path: Path, ttft_ms: int, tpot_ms: int, outcome: Outcome) -> None:
    targets = Targets(classes=(target(ttft_ms=ttft_ms, tpot_ms=tpot_ms),))
    async with pod(tmp_path, targets=targets) as one:
        await one.answer(max_tokens=5)
        await one.idle()
        assert one.counted == only(outcome)


async def test_an_answer_in_one_piece_is_held_to_the_sum_of_its_targets(tmp_path: Path) -> None:
    # 20 steps of 5 ms are at least 100 ms: more than 1 ms + 19 × 1 ms.
    targets = Targets(classes=(target(ttft_ms=1, tpot_ms=1),))
    async with pod(tmp_path, targets=targets) as one:
        await one.answer(stream=False, max_tokens=20)
        await one.idle()
        assert one.counted == only(Outcome.LATE_BOTH)


@pytest.mark.parametrize(
    ("elapsed", "outcome"),
    [
        pytest.param("400", Outcome.GOOD, id="within the target"),
        pytest.param("60000", Outcome.LATE_TTFT, id="held too long"),
        pytest.param("-60000", Outcome.GOOD, id="not a time"),
        pytest.param("6e4", Outcome.GOOD, id="not a whole number"),
    ],
)
async def test_the_clock_starts_at_the_gate(tmp_path: Path, elapsed: str, outcome: Outcome) -> None:
    targets = Targets(classes=(target(ttft_ms=30_000, tpot_ms=3_600_000),))
    async with pod(tmp_path, targets=targets) as one:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 3,
            "stream": True,
        }
        headers = {ELAPSED_HEADER: elapsed}
        async with one.http.post(f"{one.url}/v1/chat/completions", json=body, headers=headers) as response:
            await response.read()
        await one.idle()
        assert one.counted == only(outcome)


async def test_one_token_is_judged_by_its_first_alone(tmp_path: Path) -> None:
    async with pod(tmp_path, targets=Targets(classes=(target(tpot_ms=1),))) as one:
        await one.answer(max_tokens=1)
        await one.idle()
        assert one.counted == only(Outcome.GOOD)


async def test_the_class_follows_from_the_prompt_that_the_engine_counted(tmp_path: Path) -> None:
    targets = Targets(classes=(target(name="short", up_to=20), target(name="long")))
    async with pod(tmp_path, targets=targets) as one:
        _, short = await one.answer(words="x" * 40, max_tokens=2, stream_options={"include_usage": True})
        await one.answer(words="x" * 400, max_tokens=2)
        await one.idle()
        assert events(short)[-1]["usage"]["prompt_tokens"] == 14
        assert one.counted == only(Outcome.GOOD, latency_class="short") | only(
            Outcome.GOOD, latency_class="long"
        )


async def test_a_client_that_leaves_before_its_target_without_a_token_is_left_out(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=3600) as one:
        await leave(one, after_s=0.2)
        assert one.counted == only(Outcome.ABORTED_EARLY)


async def test_a_client_that_leaves_after_its_target_is_a_miss(tmp_path: Path) -> None:
    targets = Targets(classes=(target(ttft_ms=1),))
    async with pod(tmp_path, targets=targets, emulation_step_s=3600) as one:
        await leave(one, after_s=0.2)
        assert one.counted == only(Outcome.ABORTED_LATE)


async def test_a_client_that_leaves_in_mid_stream_is_a_miss(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=0.02) as one:
        async with one.ask(max_tokens=500, ignore_eos=True) as response:
            await response.content.readline()
        await one.idle()
        assert one.counted == only(Outcome.ABORTED_LATE)


async def test_an_aborted_request_is_counted_in_the_class_of_its_prompt(tmp_path: Path) -> None:
    targets = Targets(classes=(target(name="short", up_to=20), target(name="long")))
    async with pod(tmp_path, targets=targets, emulation_step_s=3600) as one:
        await leave(one, after_s=0.2, words="x" * 400)
        assert one.counted == only(Outcome.ABORTED_EARLY, latency_class="long")


async def test_a_client_that_leaves_an_answer_in_one_piece_is_counted(tmp_path: Path) -> None:
    async with pod(tmp_path, emulation_step_s=3600) as one:
        await leave(one, after_s=0.2, stream=False)
        assert one.counted == only(Outcome.ABORTED_EARLY)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({"messages": []}, 400, id="no message"),
        pytest.param({"model": "other"}, 404, id="no such model"),
        pytest.param({"max_tokens": -1}, 400, id="nonsense"),
        pytest.param(
            {"messages": [{"role": "user", "content": "x" * 9000}]}, 400, id="longer than the model"
        ),
    ],
)
async def test_the_requests_own_fault_is_no_miss(tmp_path: Path, fields: dict[str, Any], status: int) -> None:
    async with pod(tmp_path) as one:
        answered, _ = await one.answer(**fields)
        await one.idle()
        assert answered == status
        assert one.counted == only(Outcome.CLIENT_ERROR)


async def test_a_prompt_that_was_never_counted_has_no_class(tmp_path: Path) -> None:
    targets = Targets(classes=(target(name="short", up_to=20), target(name="long")))
    async with pod(tmp_path, targets=targets) as one:
        await one.answer(messages=[])
        await one.idle()
        assert one.counted == only(Outcome.CLIENT_ERROR, latency_class="unknown")


async def test_a_server_that_raises_is_a_failure(tmp_path: Path) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("no engine")

    async with pod(tmp_path, wrap=lambda _: broken) as one:
        assert (await one.answer())[0] == 500
        await one.idle()
        assert one.counted == only(Outcome.FAILED)


async def test_a_stream_that_ends_in_an_error_after_200_is_a_failure(tmp_path: Path) -> None:
    """vLLM sends [DONE] after the error too: a client that looks for nothing else takes it for success."""
    error = b'data: {"error": {"message": "engine gone", "type": "InternalServerError", "code": 500}}\n\n'
    async with pod(tmp_path, wrap=lambda app: ErrorAfter(app, events=3, error=error)) as one:
        status, body = await one.answer(max_tokens=10)
        await one.idle()
        assert status == 200
        assert body.endswith("data: [DONE]\n\n")
        assert one.counted == only(Outcome.FAILED)


async def test_a_stream_that_the_engine_broke_off_is_a_failure(tmp_path: Path) -> None:
    def break_off(body: bytes) -> bytes:
        return body.replace(b'"finish_reason":"length"', b'"finish_reason":"abort"')

    async with pod(tmp_path, wrap=lambda app: Edited(app, break_off)) as one:
        await one.answer(max_tokens=3)
        await one.idle()
        assert one.counted == only(Outcome.FAILED)


async def test_a_stream_without_its_end_mark_is_a_failure(tmp_path: Path) -> None:
    async with pod(
        tmp_path, wrap=lambda app: Edited(app, lambda body: body.replace(b"data: [DONE]", b":"))
    ) as one:
        await one.answer(max_tokens=3)
        await one.idle()
        assert one.counted == only(Outcome.FAILED)


async def test_what_a_model_writes_cannot_imitate_the_end(tmp_path: Path) -> None:
    """A text may hold `"finish_reason":"abort"`; inside JSON its quotes are escaped."""
    word = json.dumps('"finish_reason":"abort"')[1:-1].encode()

    def say(body: bytes) -> bytes:
        return body.replace(b'"content":" answer"', b'"content":"' + word + b'"')

    async with pod(tmp_path, wrap=lambda app: Edited(app, say)) as one:
        _, body = await one.answer(max_tokens=4)
        await one.idle()
        assert word.decode() in body
        assert one.counted == only(Outcome.GOOD)


async def test_probes_models_and_metrics_are_not_requests(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        for path in ("/ready", "/live", "/health", "/v1/models", "/metrics", "/paceline/info"):
            assert (await one.get(path))[0] == 200
        assert one.counted == {}


async def test_warm_up_is_not_counted(tmp_path: Path) -> None:
    async with pod(tmp_path, open_now=False) as one:
        assert (await one.answer(max_tokens=2))[0] == 200
        assert one.counted == {}


async def test_many_at_once_are_each_counted_once(tmp_path: Path) -> None:
    async with pod(tmp_path, max_queued_requests=100) as one:
        answers = await asyncio.gather(*(one.answer(max_tokens=3, stream=n % 2 == 0) for n in range(60)))
        await one.idle()
        assert [status for status, _ in answers] == [200] * 60
        assert one.counted == only(Outcome.GOOD, count=60)


async def leave(one: Pod, *, after_s: float, **fields: Any) -> None:
    """Ask, hang up, and wait until the server has noticed."""
    task = asyncio.create_task(one.answer(**fields))
    await until(lambda: one.server.engine.unfinished() > 0)
    await asyncio.sleep(after_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await one.idle()


class Edited:
    """Changes what the server sends, between it and the middleware."""

    def __init__(self, app: App, edit: Any) -> None:
        self._app = app
        self._edit = edit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def edited(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": self._edit(message.get("body", b""))}
            await send(message)

        await self._app(scope, receive, edited)


class ErrorAfter:
    """A stream that ends as vLLM's do when the engine fails: an error event, then [DONE]; no usage is
    left."""

    def __init__(self, app: App, *, events: int, error: bytes) -> None:
        self._app = app
        self._events = events
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = self._events

        async def failing(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body":
                left -= 1
                if left < 0:
                    return
            await send(message)

        await self._app(scope, receive, failing)
        scope["state"].pop("request_metadata")
        for body in (self._error, b"data: [DONE]\n\n", b""):
            await send({"type": "http.response.body", "body": body, "more_body": bool(body)})
