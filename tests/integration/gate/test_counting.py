"""What the operator reads at the gate: every arrival once, and how long it had waited when it reached an engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from paceline_core import ELAPSED_HEADER
from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.processes import free_port, stack, wait_until

ARRIVALS = "paceline_gate_arrivals_total"
CLIENT_ERRORS = "paceline_gate_client_errors_total"


def unserved(reason: str) -> str:
    return f'paceline_gate_unserved_total{{reason="{reason}"}}'


async def test_requests_for_an_answer_are_arrivals(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        await served.ask()
        await served.ask(stream=True)
        for path in ("/v1/models", "/v1/nothing"):
            async with served.session.get(served.url + path):
                pass
        assert await served.metric(ARRIVALS) == 2
        worker.refuse_with = 400
        await served.ask()
        worker.refuse_with = 429
        await served.ask()
        assert await served.metric(ARRIVALS) == 4
        assert await served.metric(CLIENT_ERRORS) == 1
        # The engine said so itself, and has counted it.
        assert await served.metric(unserved("router_error")) == 0


async def test_an_arrival_counts_when_it_arrives(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker(step_s=0.05)
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        asking = asyncio.create_task(served.ask(tokens=100, stream=True))
        await wait_until("the worker runs it", lambda: worker.running == 1)
        assert await served.metric(ARRIVALS) == 1
        asking.cancel()


async def test_what_no_engine_counts_is_counted_here(tmp_path: Path, start_worker: StartWorker) -> None:
    held = ["--max-held-requests=1", "--max-hold-seconds=1"]
    async with stack(tmp_path, workers=[], gate_args=held) as served:
        statuses = sorted(status for status, _, _ in await asyncio.gather(*(served.ask() for _ in range(3))))
        assert statuses == [429, 429, 503]
        assert await served.metric(ARRIVALS) == 3
        assert await served.metric(unserved("hold_full")) == 2
        assert await served.metric(unserved("no_engine")) == 1
    worker = await start_worker(step_s=0.05)
    (tmp_path / "lost").mkdir()
    async with stack(tmp_path / "lost", workers=[worker.address]) as served:
        await served.wait_ready()
        asking = asyncio.create_task(served.ask(tokens=100, stream=True))
        await wait_until("the worker runs it", lambda: worker.running == 1)
        await asyncio.sleep(0.2)
        await worker.die()
        await asking
        assert await served.metric(unserved("engine_lost")) == 1


async def test_an_engine_is_told_how_long_a_request_was_held(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    port = free_port()
    async with stack(tmp_path, workers=[f"127.0.0.1:{port}"]) as served:
        asking = asyncio.create_task(served.ask(headers={ELAPSED_HEADER: "999999"}))
        await asyncio.sleep(1)
        worker = await start_worker(port=port)
        status, _, _ = await asking
        assert status == 200
        elapsed_ms = [int(one[ELAPSED_HEADER]) for one in _lower(worker.headers)]
        assert len(elapsed_ms) == 1
        assert 900 < elapsed_ms[0] < 60_000
        await served.ask()
        assert int(_lower(worker.headers)[-1][ELAPSED_HEADER]) < 900


def _lower(headers: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name.lower(): value for name, value in one.items()} for one in headers]
