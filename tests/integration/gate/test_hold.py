"""A request that no engine can take yet waits, within bounds, and is then answered."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.processes import Stack, chat, free_port, stack, wait_until


async def test_a_held_request_is_answered_when_a_worker_comes(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    port = free_port()
    async with stack(tmp_path, workers=[f"127.0.0.1:{port}"]) as served:
        await served.wait_listed(set())
        since_s = time.monotonic()
        asking = [asyncio.create_task(served.ask(stream=stream)) for stream in (True, False)]
        await asyncio.sleep(1.0)
        assert await served.metric("paceline_gate_held_requests") == 2
        await start_worker(port=port)
        answers = await asyncio.gather(*asking)
        assert [status for status, _, _ in answers] == [200, 200]
        assert answers[0][2].endswith(b"data: [DONE]\n\n")
        assert time.monotonic() - since_s < 15
        assert await served.metric("paceline_gate_held_requests") == 0
        # The client's time to first token includes the hold.
        assert await served.metric("paceline_gate_time_to_first_token_seconds_sum") > 1.0


async def test_a_full_hold_answers_429_and_a_long_one_503(tmp_path: Path) -> None:
    bounds = ["--max-held-requests", "2", "--max-hold-seconds", "2"]
    async with stack(tmp_path, workers=["127.0.0.1:9"], gate_args=bounds) as served:
        await served.wait_listed(set())
        since_s = time.monotonic()
        held = [asyncio.create_task(served.ask()) for _ in range(2)]
        await asyncio.sleep(0.5)
        status, headers, body = await served.ask()
        assert status == 429
        assert headers["Retry-After"] == "1"
        assert b'"code":"hold_full"' in body
        assert time.monotonic() - since_s < 1.5
        for status, headers, body in await asyncio.gather(*held):
            assert status == 503
            assert headers["Retry-After"] == "1"
            assert b'"code":"no_engine"' in body
        assert 1.9 < time.monotonic() - since_s < 3.0
        assert await served.metric('paceline_gate_requests_total{code="429"}') == 1


async def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    bounds = ["--max-held-requests", "1", "--max-hold-seconds", "20"]
    async with stack(tmp_path, workers=["127.0.0.1:9"], gate_args=bounds) as served:
        await served.wait_listed(set())
        impatient = asyncio.create_task(served.ask())
        await asyncio.sleep(0.5)
        assert await served.metric("paceline_gate_held_requests") == 1
        impatient.cancel()
        await asyncio.sleep(0.3)
        assert await served.metric("paceline_gate_held_requests") == 0
        assert await served.metric('paceline_gate_requests_total{code="499"}') == 1
        patient = asyncio.create_task(served.ask())
        await asyncio.sleep(0.5)
        assert not patient.done()
        patient.cancel()


async def test_requests_wait_while_the_router_restarts(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        await served.router.stop()
        asking = [asyncio.create_task(served.ask(stream=True)) for _ in range(5)]
        await asyncio.sleep(1.0)
        assert not any(task.done() for task in asking)
        served.router.start()
        assert {status for status, _, _ in await asyncio.gather(*asking)} == {200}
        # And its list is whole again.
        await served.wait_listed({worker.address})
        await wait_until("nothing runs on the worker", lambda: worker.running == 0)


async def test_a_crowd_that_waits_at_zero_is_answered_to_the_last(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    """The router lists its first worker and takes all of them at once: none meets its 503."""
    port = free_port()
    async with stack(tmp_path, workers=[f"127.0.0.1:{port}"]) as served:
        await served.wait_listed(set())
        asking = [asyncio.create_task(served.ask(stream=number % 2 == 0)) for number in range(40)]
        await asyncio.sleep(1.0)
        assert not any(task.done() for task in asking)
        worker = await start_worker(port=port)
        assert {status for status, _, _ in await asyncio.gather(*asking)} == {200}
        assert worker.seen.count("POST /v1/chat/completions") == 40


async def test_a_held_stream_gets_comments_until_its_answer_comes(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    port = free_port()
    often = ["--keep-alive-seconds", "0.4"]
    async with stack(tmp_path, workers=[f"127.0.0.1:{port}"], gate_args=often) as served:
        await served.wait_listed(set())
        since_s = time.monotonic()
        asking = [asyncio.create_task(served.ask(stream=stream)) for stream in (True, False)]
        first_byte_s = await _first_byte_of_a_stream(served)
        assert 0.3 < first_byte_s < 3
        assert not any(task.done() for task in asking)
        await start_worker(port=port)
        (status, headers, streamed), (whole_status, whole_headers, whole) = await asyncio.gather(*asking)
        held_s = time.monotonic() - since_s
        assert status == whole_status == 200
        assert headers["Content-Type"].startswith("text/event-stream")
        assert streamed.startswith(b": waiting for an engine\n\n")
        assert streamed.endswith(b"data: [DONE]\n\n")
        assert streamed.count(b'"content"') == 3
        # Who did not ask for a stream got nothing but the answer.
        assert whole_headers["Content-Type"].startswith("application/json")
        assert json.loads(whole)["choices"][0]["finish_reason"] == "length"
        # A comment is not a token: the time to the first one is that of the whole hold.
        ttft_s = await served.metric("paceline_gate_time_to_first_token_seconds_sum")
        assert first_byte_s < ttft_s < held_s + 1


async def test_a_hold_that_ends_after_a_comment_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    bounds = ["--max-hold-seconds", "2", "--keep-alive-seconds", "0.4"]
    async with stack(tmp_path, workers=["127.0.0.1:9"], gate_args=bounds) as served:
        await served.wait_listed(set())
        (status, _, streamed), (whole_status, headers, _) = await asyncio.gather(
            served.ask(stream=True), served.ask()
        )
        assert status == 200
        assert streamed.startswith(b": waiting")
        assert b'data: {"error":' in streamed
        assert b'"code":"no_engine"' in streamed
        assert b"[DONE]" not in streamed
        assert (whole_status, headers["Retry-After"]) == (503, "1")
        # Both are misses, and both count by what became of them.
        assert await served.metric('paceline_gate_unserved_total{reason="no_engine"}') == 2
        assert await served.metric('paceline_gate_requests_total{code="503"}') == 2


async def test_what_an_engine_refuses_after_a_comment_is_an_event_and_counts_as_refused(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    port = free_port()
    often = ["--keep-alive-seconds", "0.4"]
    async with stack(tmp_path, workers=[f"127.0.0.1:{port}"], gate_args=often) as served:
        await served.wait_listed(set())
        asking = asyncio.create_task(served.ask(stream=True))
        await _first_byte_of_a_stream(served)
        worker = await start_worker(port=port)
        worker.refuse_with = 400
        status, _, streamed = await asking
        assert status == 200
        assert b'data: {"error":{"message":"refused"' in streamed
        assert b"[DONE]" not in streamed
        assert await served.metric("paceline_gate_client_errors_total") >= 1
        assert await served.metric('paceline_gate_unserved_total{reason="no_engine"}') == 0


async def test_who_may_be_held_for_minutes_is_told_to_try_again_later(tmp_path: Path) -> None:
    bounds = ["--max-held-requests", "0", "--max-hold-seconds", "120"]
    async with stack(tmp_path, workers=["127.0.0.1:9"], gate_args=bounds) as served:
        await served.wait_listed(set())
        status, headers, _ = await served.ask()
        assert (status, headers["Retry-After"]) == (429, "12")


async def _first_byte_of_a_stream(served: Stack) -> float:
    """Seconds until a held stream that is then given up has its first byte."""
    since_s = time.monotonic()
    async with served.session.post(f"{served.url}/v1/chat/completions", json=chat(stream=True)) as response:
        assert await response.content.readany() == b": waiting for an engine\n\n"
    return time.monotonic() - since_s
