"""What the gate adds to a request and to a streamed chunk: `vllm-router` alone beside gate and router.

    python benchmarks/gate_overhead.py

One worker, one router, one gate, each a process on loopback. Both ways are measured in turns, so that a busy
machine slows both alike. Times are the client's; a chunk's delay counts from the worker's own stamp inside
the chunk (one clock: one machine). CPU time is the gate process's own, from /proc, and does not depend on what
else runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import click
from aiohttp import web

from paceline_runtime.gate import router as router_process

BODY = {"model": "m", "messages": [{"role": "user", "content": "hello " * 50}], "max_tokens": 1}


@dataclass(slots=True)
class Way:
    """One way to the worker, and what was seen on it."""

    name: str
    url: str
    request_us: list[float] = field(default_factory=list)
    chunk_us: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Cpu:
    """CPU time of one process over what it handled."""

    pid: int
    user_us: float = 0.0
    kernel_us: float = 0.0
    handled: int = 0

    @contextmanager
    def over(self, handled: int) -> Iterator[None]:
        user_us, kernel_us = _cpu_us(self.pid)
        yield
        now_user_us, now_kernel_us = _cpu_us(self.pid)
        self.user_us += now_user_us - user_us
        self.kernel_us += now_kernel_us - kernel_us
        self.handled += handled

    def row(self, what: str) -> str:
        user_us, kernel_us = self.user_us / self.handled, self.kernel_us / self.handled
        return f"| CPU of the gate for a {what}, own + kernel, µs | | | {user_us:.0f} + {kernel_us:.0f} |"


def _cpu_us(pid: int) -> tuple[float, float]:
    user, kernel = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    tick_us = 1e6 / os.sysconf("SC_CLK_TCK")
    return int(user) * tick_us, int(kernel) * tick_us


async def serve_worker(port: int) -> None:
    """Answers at once; a stream has `max_tokens` chunks, `step_ms` apart, each with its time of sending."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("stream"):
            return web.json_response({"choices": [{"finish_reason": "length"}]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        step_s = float(request.headers["x-step-ms"]) / 1000
        for _ in range(body["max_tokens"]):
            await asyncio.sleep(step_s)
            event = {"choices": [{"delta": {"content": "word"}}], "sent": time.monotonic()}
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        return response

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def whole(session: aiohttp.ClientSession, way: Way, *, count: int) -> None:
    """Small requests, one after the other on one connection."""
    for _ in range(count):
        since_s = time.perf_counter()
        async with session.post(way.url, json=BODY) as response:
            await response.read()
            assert response.status == 200, await response.text()
        way.request_us.append((time.perf_counter() - since_s) * 1e6)


async def streams(
    session: aiohttp.ClientSession, way: Way, *, count: int, chunks: int, step_ms: float
) -> None:
    """Streams side by side, their chunks evenly apart: a chunk meets no other one on its way."""

    async def one(number: int) -> None:
        await asyncio.sleep(number * step_ms / 1000 / count)
        body = {**BODY, "stream": True, "max_tokens": chunks}
        async with session.post(way.url, json=body, headers={"x-step-ms": str(step_ms)}) as response:
            async for line in response.content:
                if line.startswith(b"data:"):
                    sent_s = json.loads(line[5:])["sent"]
                    way.chunk_us.append((time.monotonic() - sent_s) * 1e6)

    await asyncio.gather(*(one(number) for number in range(count)))


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def report(direct: Way, gated: Way, *, requests: Cpu, chunks: Cpu) -> str:
    cores, load = os.cpu_count(), os.getloadavg()[0]
    rows = [
        f"{cores} cores, load average {load:.1f}",
        "",
        "| | router | gate and router | added |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, one, other in (
        ("request", direct.request_us, gated.request_us),
        ("chunk", direct.chunk_us, gated.chunk_us),
    ):
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            a, b = quantile(one, share), quantile(other, share)
            rows.append(f"| {what}, {name}, µs | {a:.0f} | {b:.0f} | {b - a:.0f} |")
    rows += [requests.row("request"), chunks.row("chunk")]
    return "\n".join(rows)


@contextmanager
def child(argv: list[str], *, log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        environ = {**os.environ, **router_process.ENVIRONMENT, "KUBECONFIG": "/nonexistent"}
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, env=environ)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def wait_ready(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(600):
        try:
            async with session.get(url) as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise click.ClickException(f"{url} is not ready after 60 s")


async def measure(
    gate_pid: int,
    *,
    router_url: str,
    gate_url: str,
    ready_url: str,
    rounds: int,
    requests: int,
    count: int,
    chunks: int,
    step_ms: float,
) -> str:
    path = "/v1/chat/completions"
    direct, gated = Way("router", router_url + path), Way("gate", gate_url + path)
    per_request, per_chunk = Cpu(gate_pid), Cpu(gate_pid)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await wait_ready(session, ready_url)
        await whole(session, Way("warm-up", direct.url), count=100)
        await whole(session, Way("warm-up", gated.url), count=100)
        for number in range(rounds):
            click.echo(f"round {number + 1} of {rounds}", err=True)
            await whole(session, direct, count=requests)
            with per_request.over(requests):
                await whole(session, gated, count=requests)
            await streams(session, direct, count=count, chunks=chunks, step_ms=step_ms)
            with per_chunk.over(count * chunks):
                await streams(session, gated, count=count, chunks=chunks, step_ms=step_ms)
    return report(direct, gated, requests=per_request, chunks=per_chunk)


@click.command()
@click.option("--rounds", default=4, show_default=True, help="Turns that each way gets.")
@click.option("--requests", default=400, show_default=True, help="In a round, one after the other.")
@click.option("--streams", "count", default=8, show_default=True, help="Side by side.")
@click.option("--chunks", default=100, show_default=True, help="Of each stream.")
@click.option("--step-ms", default=20.0, show_default=True, help="Between two chunks of a stream.")
@click.option("--worker-port", hidden=True, type=int)
def main(
    rounds: int, requests: int, count: int, chunks: int, step_ms: float, worker_port: int | None
) -> None:
    """Measure and print a table."""
    if worker_port is not None:
        asyncio.run(serve_worker(worker_port))
        return
    worker, router, gate, ops = (free_port() for _ in range(4))
    argv = router_process.argv(
        namespace="n", selector="a=b", policy="RoundRobin", max_request_s=60, port=router, engine_port=worker
    )
    argv[argv.index("--prometheus-port") + 1] = str(free_port())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gate_argv = [
            *(str(Path(sys.executable).parent / "paceline-runtime"), "gate", "--no-discovery"),
            *("--service", "s", "--worker", f"127.0.0.1:{worker}", "--router", f"http://127.0.0.1:{router}"),
            *("--host", "127.0.0.1", "--port", str(gate), "--ops-port", str(ops)),
            *("--max-request-seconds", "60", "--socket", str(folder / "gate.sock")),
        ]
        with (
            child([sys.executable, __file__, "--worker-port", str(worker)], log=folder / "worker.log"),
            child(argv, log=folder / "router.log"),
            child(gate_argv, log=folder / "gate.log") as gate_pid,
        ):
            table = asyncio.run(
                measure(
                    gate_pid,
                    router_url=f"http://127.0.0.1:{router}",
                    gate_url=f"http://127.0.0.1:{gate}",
                    ready_url=f"http://127.0.0.1:{ops}/readyz",
                    rounds=rounds,
                    requests=requests,
                    count=count,
                    chunks=chunks,
                    step_ms=step_ms,
                )
            )
    click.echo(table)


if __name__ == "__main__":
    main()
