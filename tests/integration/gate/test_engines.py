"""Gate, router and engines together, each a process: nothing is lost that need not be."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from e2e.load import Load, OpenLoop
from tests.integration.gate.engines import Engine, engine
from tests.integration.gate.pod_api import PodApi
from tests.integration.gate.processes import free_port, stack

StartEngine = Callable[..., Engine]

PROBE_S, FAILURES = 2.0, 3
"""Of an engine pod's readiness."""

OPS_PORT = 9090
"""Where engines ask the gates: fixed in the engine, so these gates have an address of their own."""


@pytest.fixture
async def start_engine(tmp_path: Path) -> AsyncIterator[StartEngine]:
    engines: list[Engine] = []

    def start(*, ip: str, port: int, **options: object) -> Engine:
        made = engine(tmp_path / f"engine-{ip}", ip=ip, port=port, **options)  # type: ignore[arg-type]
        engines.append(made)
        made.process.start()
        return made

    yield start
    for one in engines:
        await one.hook.stop()
        await one.process.stop()


async def test_a_real_queue_overflow_is_over_within_two_seconds(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    one = start_engine(ip="127.0.0.1", port=free_port(), max_sequences=2, max_queued=2)
    async with stack(tmp_path, workers=[one.address]) as served:
        await served.wait_ready()
        answers = await asyncio.gather(*(served.ask(tokens=50, stream=True) for _ in range(60)))
        by_status = {status: headers for status, headers, _ in answers}
        assert set(by_status) == {200, 429}
        assert by_status[429]["Retry-After"] == "1"
        since_s = time.monotonic()
        assert [(await served.ask(tokens=1))[0] for _ in range(10)] == [200] * 10
        assert time.monotonic() - since_s < 2.0


async def test_a_killed_engine_loses_only_its_running_streams(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    port = free_port()
    engines = [start_engine(ip=f"127.0.0.{number}", port=port) for number in (2, 3)]
    async with stack(tmp_path, workers=[one.address for one in engines]) as served:
        await served.wait_ready()
        loop = OpenLoop(served.url, model="m", load=Load(rate_per_s=20, max_tokens=(20, 40)))
        async with loop.running():
            await asyncio.sleep(2)
            running = loop.live().in_flight
            engines[0].process.signal(signal.SIGKILL)
            await asyncio.sleep(4)
        failed = [record for record in loop.records if not record.ok]
        assert len(failed) <= running
        assert all("engine_lost" in (record.failure or "") for record in failed)


async def test_an_engine_that_drains_under_load_loses_nothing(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    """A pod is deleted as the kubelet does it: time-stamp, preStop hook, then SIGTERM. The engine asks the
    gate whether it is still listed; its own router discovery and the gate's watch see the same pods."""
    port = free_port()
    api = await PodApi().start()
    gate_ip = "127.0.0.77"
    leaves, stays = (start_engine(ip=f"127.0.0.{number}", port=port, routers=gate_ip) for number in (4, 5))
    await api.put("leaves", ip="127.0.0.4")
    await api.put("stays", ip="127.0.0.5")
    async with stack(
        tmp_path,
        api_server=api.url,
        kubeconfig=api.kubeconfig(tmp_path),
        engine_port=port,
        gate_address=(gate_ip, OPS_PORT),
    ) as served:
        await served.wait_listed({leaves.address, stays.address})
        await served.wait_ready()
        loop = OpenLoop(served.url, model="m", load=Load(rate_per_s=20, max_tokens=(20, 150)))
        async with loop.running():
            await asyncio.sleep(2)
            await api.put("leaves", ip="127.0.0.4", deleting=True)
            leaves.hook.start()
            await asyncio.sleep(1)
            await api.put("leaves", ip="127.0.0.4", deleting=True, ready=False)
            assert await leaves.hook.exit_code(timeout_s=40) == 0
            leaves.process.signal(signal.SIGTERM)
            await leaves.process.exit_code()
            await api.delete("leaves", announced=False)
            await asyncio.sleep(1)
        assert "drained, 0 requests left" in leaves.hook.output()
        assert loop.summary().failed == 0, loop.summary().text()
        assert loop.summary().requests > 200
        assert await served.listed() == {stays.address}
    await api.stop()


async def test_the_only_engine_changes_its_layout_under_load_and_loses_nothing(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    """What comes meanwhile is held. A stand-in for the kubelet asks for readiness as it does."""
    port, gate_ip = free_port(), "127.0.0.78"
    api = await PodApi().start()
    one = start_engine(ip="127.0.0.6", port=port, routers=gate_ip, gpus=8)
    async with stack(
        tmp_path,
        api_server=api.url,
        kubeconfig=api.kubeconfig(tmp_path),
        engine_port=port,
        gate_address=(gate_ip, OPS_PORT),
        gate_args=("--max-hold-seconds", "240", "--max-held-requests", "3000"),
    ) as served:
        kubelet = asyncio.create_task(_tell_readiness(api, one))
        await served.wait_listed({one.address}, timeout_s=200)
        await served.wait_ready()
        loop = OpenLoop(served.url, model="m", load=Load(rate_per_s=4, max_tokens=(20, 150)))
        async with loop.running():
            for layout in ("tp=4,dp=2,change=1,drain=30", "tp=2,dp=4,change=2,drain=30"):
                await asyncio.sleep(2)
                (tmp_path / "engine-127.0.0.6" / "layout").write_text(layout)
                await served.wait_listed(set(), timeout_s=60)
                await served.wait_listed({one.address}, timeout_s=200)
            await asyncio.sleep(2)
        async with served.session.get(f"http://{one.address}/paceline/info") as answer:
            info = await answer.json()
        kubelet.cancel()
        assert (info["tensorParallelSize"], info["dataParallelSize"], info["refusedLayout"]) == (2, 4, None)
        assert loop.summary().failed == 0, loop.summary().text()
        longest_s = max(record.ttft_s or 0.0 for record in loop.records)
        print(f"{loop.summary().requests} requests, the longest hold {longest_s:.1f} s")
        assert 5 < longest_s < 240
    await api.stop()


async def _tell_readiness(api: PodApi, one: Engine) -> None:
    failures = FAILURES
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while True:
            try:
                async with session.get(f"http://{one.address}/ready") as answer:
                    ready = answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                ready = False
            failures = 0 if ready else failures + 1
            if ready or failures == FAILURES:
                await api.put("one", ip="127.0.0.6", ready=ready)
            await asyncio.sleep(PROBE_S)
