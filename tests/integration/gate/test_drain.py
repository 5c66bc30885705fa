"""A gate that leaves loses nothing."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp

from e2e.load import Load, OpenLoop
from tests.integration.gate.conftest import StartWorker
from tests.integration.gate.processes import PROGRAM, Child, Stack, stack, wait_until


def drain_hook(served: Stack) -> Child:
    """The preStop hook, as the kubelet runs it, with a shorter wait."""
    argv = [PROGRAM, "gate-drain", "--socket", str(served.gate_socket), "--accept-seconds", "3"]
    return Child(argv, served.gate_socket.with_name("hook.log"))


async def test_every_stream_ends_after_sigterm(tmp_path: Path, start_worker: StartWorker) -> None:
    worker = await start_worker(step_s=0.05)
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        asking = [asyncio.create_task(served.ask(tokens=60, stream=True)) for _ in range(40)]
        await wait_until("all run", lambda: worker.running == 40)
        served.gate.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert served.gate.running
        # Draining engines ask a gate that ends: its router still sends.
        async with served.session.get(f"{served.ops_url}/workers") as response:
            assert (await response.json())["workers"] == [worker.address]
        answers = await asyncio.gather(*asking)
        assert all(status == 200 and body.endswith(b"[DONE]\n\n") for status, _, body in answers)
        assert await served.gate.exit_code(timeout_s=5) == 0


async def test_a_draining_gate_accepts_and_asks_its_clients_to_go(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    async with stack(tmp_path, workers=[worker.address]) as served:
        await served.wait_ready()
        assert "close" not in (await served.ask())[1].get("Connection", "")
        hook = drain_hook(served)
        hook.start()
        for _ in range(100):
            if await served.ready() == 503:
                break
            await asyncio.sleep(0.05)
        assert await served.ready() == 503
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as fresh:
            for stream in (True, False):
                status, headers, _ = await served.ask(stream=stream)
                assert status == 200
                assert headers["Connection"] == "close"
            async with fresh.get(f"{served.url}/nowhere") as response:
                assert response.status == 404
                assert response.headers["Connection"] == "close"
        assert hook.running
        assert await hook.exit_code() == 0


async def test_a_whole_departure_under_load_loses_nothing(tmp_path: Path, start_worker: StartWorker) -> None:
    """preStop, then SIGTERM, while clients that keep their connections go on; new ones go elsewhere."""
    worker = await start_worker(step_s=0.02)
    (tmp_path / "a").mkdir()
    async with stack(tmp_path / "a", workers=[worker.address]) as served:
        await served.wait_ready()
        loop = OpenLoop(served.url, model="m", load=Load(rate_per_s=20, max_tokens=(5, 50)))
        async with loop.running():
            await asyncio.sleep(1)
            hook = drain_hook(served)
            hook.start()
            assert await hook.exit_code() == 0
        served.gate.signal(signal.SIGTERM)
        assert loop.summary().failed == 0, loop.summary().text()
        assert loop.summary().requests > 50
        assert await served.gate.exit_code(timeout_s=5) == 0


async def test_the_hook_says_so_where_no_gate_answers(tmp_path: Path) -> None:
    hook = Child([PROGRAM, "gate-drain", "--socket", str(tmp_path / "none.sock")], tmp_path / "hook.log")
    hook.start()
    assert await hook.exit_code() == 1
    assert "no gate answers on" in hook.output()
