"""How a real engine starts, is refused, leaves, and crashes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.integration.runtime.engine import Client, client_of, engine, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_a_tensor_parallel_size_that_does_not_divide_the_heads_is_refused_before_anything_loads(
    tmp_path: Path,
) -> None:
    with engine(tmp_path, "--tensor-parallel-size", "2") as one:
        assert one.process.wait(30) == 78
        assert one.verdict["verdict"] == "Refused"
        assert one.verdict["field"] == "spec.scaling.tensorParallelSize"
        assert "write one of 1, 3" in one.verdict["message"]
        assert "vllm" not in one.log.lower()


def test_a_start_that_vllm_ends_leaves_its_stage_and_its_words(tmp_path: Path) -> None:
    with engine(tmp_path, "--", "--dtype=nonsense") as one:
        assert one.process.wait(300) not in (0, 78)
        assert one.verdict["verdict"] == "Failed"
        assert one.verdict["stage"] == "import"
        assert "nonsense" in one.verdict["message"]


async def test_streams_in_flight_end_with_done_through_drain_and_sigterm(tmp_path: Path) -> None:
    with engine(tmp_path) as one:
        await asyncio.to_thread(one.wait_ready)
        async with client_of(one) as client:
            streams = [
                asyncio.create_task(client.answer(stream=True, max_tokens=150, ignore_eos=True))
                for _ in range(2)
            ]
            await until(lambda: in_flight(client, 2))
            await client.drain()
            assert (await client.state())["phase"] == "draining"
            assert await asyncio.to_thread(one.status, "/ready") == 503
            assert (await client.answer())[0] == 429
            one.process.send_signal(signal.SIGTERM)
            for status, body in await asyncio.gather(*streams):
                assert status == 200
                assert '"finish_reason":"length"' in body
                assert body.endswith("data: [DONE]\n\n")
        assert await asyncio.to_thread(one.process.wait, 60) == 0


@pytest.mark.slow
async def test_an_engine_that_dies_ends_the_container_with_its_words(tmp_path: Path) -> None:
    with engine(tmp_path) as one:
        await asyncio.to_thread(one.wait_ready)
        async with client_of(one) as client:
            stream = asyncio.create_task(client.answer(stream=True, max_tokens=250, ignore_eos=True))
            await until(lambda: in_flight(client, 1))
            os.kill(one.child("VLLM::EngineCore"), signal.SIGKILL)
            await asyncio.gather(stream, return_exceptions=True)
        assert await asyncio.to_thread(one.process.wait, 120) != 0
        assert one.verdict["stage"] == "serving"


async def in_flight(client: Client, count: int) -> bool:
    return bool((await client.state())["inFlight"] == count)
