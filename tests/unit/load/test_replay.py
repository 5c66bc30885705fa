"""What is played arrives as it was written down: its moments, its lengths, every answer whole. On a real emulated engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.load import OpenLoop, Replay
from e2e.load.replay import Request
from tests.unit.runtime.test_processes import Process, emulated

REQUESTS = (
    Request(at_s=0.1, prompt_tokens=5, output_tokens=1),
    Request(at_s=0.15, prompt_tokens=1500, output_tokens=30),
    Request(at_s=0.9, prompt_tokens=77, output_tokens=12),
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Process]:
    with emulated(tmp_path, "--emulate-step-ms", "10", "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        yield process


async def test_every_request_has_its_moment_and_its_lengths(engine: Process) -> None:
    loop = OpenLoop(f"http://127.0.0.1:{engine.port}", model="m", load=Replay(requests=REQUESTS))
    async with loop.running():
        await asyncio.sleep(1.0)
    assert [record.failure for record in loop.records] == [None, None, None]
    assert [record.output_tokens for record in loop.records] == [1, 30, 12]
    for record, asked in zip(loop.records, REQUESTS, strict=True):
        assert record.scheduled_s == asked.at_s
        assert record.started_s == pytest.approx(asked.at_s, abs=0.2)
    counted = re.search(r"^vllm:prompt_tokens_total\{[^}]*\} (\S+)$", engine.text("/metrics"), re.MULTILINE)
    assert counted is not None
    assert float(counted[1]) == 5 + 1500 + 77


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param((), id="none"),
        pytest.param((REQUESTS[2], REQUESTS[0]), id="not-in-order"),
        pytest.param((Request(at_s=4000.0, prompt_tokens=5, output_tokens=1),), id="too-long"),
        pytest.param((Request(at_s=0.0, prompt_tokens=4, output_tokens=1),), id="no-such-prompt"),
        pytest.param((Request(at_s=0.0, prompt_tokens=5, output_tokens=0),), id="no-answer"),
    ],
)
def test_a_replay_has_bounds(requests: tuple[Request, ...]) -> None:
    with pytest.raises(ValueError, match="requests"):
        Replay(requests=requests)
