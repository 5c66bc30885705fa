"""What the gate does to a request and its answer: as little as can be, and never silently."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp
import pytest

from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.processes import Stack, chat, stack, wait_until

MAX_BODY_BYTES = 32 * 1024 * 1024


async def test_a_stream_comes_chunk_by_chunk_and_byte_for_byte(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker(step_s=0.2)
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        body = chat(tokens=5, stream=True)
        at_s: list[float] = []
        passed = b""
        since_s = time.monotonic()
        async with served.session.post(f"{served.url}/v1/chat/completions", json=body) as response:
            async for chunk in response.content.iter_any():
                at_s.append(time.monotonic() - since_s)
                passed += chunk
        url = f"http://{worker.address}/v1/chat/completions"
        async with served.session.post(url, json=body) as response:
            assert passed == await response.read()
        assert at_s[0] < 0.4
        assert at_s[-1] - at_s[0] > 0.7
        assert await served.metric("paceline_gate_time_to_first_token_seconds_count") == 1
        assert 0.2 < await served.metric("paceline_gate_time_to_first_token_seconds_sum") < 0.4


@pytest.mark.parametrize("tokens", [pytest.param(500, id="mid-stream"), pytest.param(1, id="before-it")])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_work(
    tmp_path: Path, start_worker: StartWorker, stream: bool, tokens: int
) -> None:
    worker = await start_worker(step_s=20.0 if tokens == 1 else 0.02)
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        async with aiohttp.ClientSession() as session:
            body = chat(tokens=tokens, stream=stream)
            asking = asyncio.create_task(session.post(f"{served.url}/v1/chat/completions", json=body))
            await wait_until("the worker runs it", lambda: worker.running == 1)
            await asyncio.sleep(0.3)
            asking.cancel()
        if stream and tokens == 1:
            # The router notices at the next chunk: it is the gate that must have let go.
            await wait_gone(served)
        else:
            await wait_until("the worker saw its client leave", lambda: worker.left == 1, timeout_s=1)
        await wait_gone(served)
        assert await served.metric('paceline_gate_requests_total{code="499"}') == 1


async def wait_gone(served: Stack) -> None:
    for _ in range(50):
        if await served.metric("paceline_gate_in_flight") == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the request is still in flight at the gate")


async def test_a_request_past_its_time_is_cut_with_an_error(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker(step_s=0.1)
    async with stack(tmp_path, workers=[worker.address], max_request_s=1) as served:
        await served.wait_ready()
        status, _, body = await served.ask(tokens=100, stream=True)
        assert status == 200
        last = body.strip().rsplit(b"\n\n", 1)[1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "max_request_seconds"
        assert b"[DONE]" not in body
        assert await served.metric('paceline_gate_requests_cut_total{reason="max_request_seconds"}') == 1
        await wait_until("the work was ended", lambda: worker.running == 0, timeout_s=1)
        status, _, body = await served.ask(tokens=100, stream=False)
        assert status == 504
        assert json.loads(body)["error"]["code"] == "max_request_seconds"
        await wait_until("the work was ended", lambda: worker.running == 0, timeout_s=1)


async def test_a_lost_engine_is_an_error_event_in_a_running_stream(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker(step_s=0.05)
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        asking = asyncio.create_task(served.ask(tokens=100, stream=True))
        await wait_until("the worker runs it", lambda: worker.running == 1)
        await asyncio.sleep(0.3)
        await worker.die()
        status, _, body = await asking
        assert status == 200
        assert b'"code":"engine_lost"' in body
        assert b"[DONE]" not in body
        assert await served.metric('paceline_gate_requests_cut_total{reason="engine_lost"}') == 1


async def test_an_engines_error_is_passed_on_as_it_is(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        for status in (400, 404, 429, 503):
            for stream in (True, False):
                worker.refuse_with = status
                found, headers, body = await served.ask(stream=stream)
                assert found == status
                assert json.loads(body)["error"]["message"] == "refused"
                assert headers["Content-Type"] == "application/json"
                assert (headers.get("Retry-After") == "1") == (status in (429, 503))


async def test_the_routers_own_errors_take_the_openai_form(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        json_type = {"Content-Type": "application/json"}
        url = f"{served.url}/v1/chat/completions"
        for data, headers, expected in (
            (b"{not json", json_type, 400),
            (b'{"model": "m"}', json_type, 422),
            (b"{}", {"Content-Type": "text/plain"}, 415),
        ):
            async with served.session.post(url, data=data, headers=headers) as response:
                assert response.status == expected
                assert (await response.json())["error"]["type"] == "invalid_request_error"
        assert worker.seen == []


async def test_a_body_over_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode())
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 2)
        writer.close()

        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        with pytest.raises((ConnectionError, AssertionError)):  # noqa: PT012
            for _ in range(40):
                writer.write(part)
                await writer.drain()
            assert b" 413 " not in await asyncio.wait_for(reader.readline(), 5)
        writer.close()

        headers = {"Expect": "100-continue"}
        assert (await served.ask(headers=headers))[0] == 200
        assert worker.seen == ["POST /v1/chat/completions"]


async def test_keys_are_checked_rotated_and_not_sent_on(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker()
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "team-a").write_text("first\n")
    async with stack(tmp_path, workers=[worker.address], gate_args=["--api-keys-dir", str(keys)]) as served:
        await served.wait_ready()
        for bad in (None, "first", "Bearer", "Bearer firs", "Bearer first2", "Basic first"):
            status, _, body = await served.ask(headers={"Authorization": bad} if bad else None)
            assert status == 401, bad
            assert json.loads(body)["error"]["code"] == "invalid_api_key"
        assert worker.seen == []
        assert (await served.ask(headers={"Authorization": "Bearer first"}))[0] == 200
        assert "Authorization" not in worker.headers[-1]
        (keys / "team-a").write_text("second\n")
        await asyncio.sleep(3)
        assert (await served.ask(headers={"Authorization": "Bearer first"}))[0] == 401
        assert (await served.ask(headers={"Authorization": "Bearer second"}))[0] == 200
