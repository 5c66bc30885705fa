"""What fails behind the gate costs as few requests as can be, and for as short as can be."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from e2e.load import Load, OpenLoop
from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.processes import stack


async def test_a_queue_overflow_is_over_within_two_seconds(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        for refuse_with in (429, 503):
            worker.refuse_with = refuse_with
            answers = await asyncio.gather(*(served.ask(stream=index % 2 == 0) for index in range(100)))
            assert {status for status, _, _ in answers} == {refuse_with}
            assert all(headers["Retry-After"] for _, headers, _ in answers)
            worker.refuse_with = None
            since_s = time.monotonic()
            probes = [(await served.ask())[0] for _ in range(25)]
            assert probes == [200] * 25
            assert time.monotonic() - since_s < 2.0


async def test_a_dead_worker_loses_only_its_running_streams(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    """The router prefers a dead worker (it has the least load) and has no breaker: the gate takes it out."""
    workers = [await start_worker(step_s=0.02) for _ in range(2)]
    async with stack(tmp_path, workers=[worker.address for worker in workers]) as served:
        await served.wait_ready()
        load = Load(rate_per_s=30, process="constant", max_tokens=(20, 20))
        loop = OpenLoop(served.url, model="m", load=load)
        async with loop.running():
            await asyncio.sleep(1.5)
            running = workers[0].running
            assert running > 0
            await workers[0].die()
            await asyncio.sleep(4)
        failed = [record for record in loop.records if not record.ok]
        assert len(loop.records) > 150
        assert len(failed) <= running
        assert all("engine_lost" in (record.failure or "") for record in failed)
        assert await served.metric("paceline_gate_workers_evicted_total") >= 1
        # It comes back by itself.
        await workers[0].start(port=workers[0].port)
        await served.wait_listed({worker.address for worker in workers})


async def test_a_killed_router_loses_only_its_running_streams(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker(step_s=0.01)
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        loop = OpenLoop(served.url, model="m", load=Load(rate_per_s=20, max_tokens=(20, 20)))
        async with loop.running():
            await asyncio.sleep(1.5)
            running = loop.live().in_flight
            await served.router.stop()
            await asyncio.sleep(0.5)
            served.router.start()
            await asyncio.sleep(5)
        failed = [record for record in loop.records if not record.ok]
        assert len(failed) <= running
        assert all("engine_lost" in (record.failure or "") for record in failed)
        assert loop.records[-1].ok


async def test_a_slow_router_does_not_take_the_last_door_away(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    """A router that gets no processor time is silent, and its Service must not lose its last endpoint."""
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        served.router.signal(signal.SIGSTOP)
        asking = asyncio.create_task(served.ask())
        states = []
        for _ in range(18):
            await asyncio.sleep(1)
            states.append(await served.ready())
        assert not asking.done()
        served.router.signal(signal.SIGCONT)
        assert (await asking)[0] == 200
        assert states == [200] * 18


async def test_a_gate_whose_router_is_gone_leaves_its_place_to_another(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        await served.router.stop()
        gone_s = time.monotonic()
        while await served.ready() == 200:
            assert time.monotonic() - gone_s < 25
            await asyncio.sleep(0.2)
        assert time.monotonic() - gone_s > 4
        served.router.start()
        await served.wait_ready()


async def test_a_request_that_kills_engines_does_not_kill_them_all(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    workers = [await start_worker(step_s=30) for _ in range(8)]
    async with stack(tmp_path, workers=[worker.address for worker in workers]) as served:
        await served.wait_ready()
        asking = asyncio.create_task(served.ask())
        killed = 0
        while not asking.done():
            for worker in workers:
                if worker.running:
                    await worker.die()
                    killed += 1
            await asyncio.sleep(0.02)
        status, _, body = await asking
        assert status == 502
        assert b'"code":"engine_lost"' in body
        # Three sendings, of two attempts each in the router.
        assert killed <= 6
