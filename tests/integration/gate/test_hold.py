"""A request that no engine can take yet waits, within bounds, and is then answered."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.processes import free_port, stack, wait_until


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
