"""What our runtime adds to bare vLLM: microseconds per request and per streamed chunk, and the throughput
ratio.

    python benchmarks/runtime_overhead.py            both parts (two engines on the CPU: some minutes)
    python benchmarks/runtime_overhead.py --no-engine

**Microseconds** are measured where they arise: the ASGI application is called with and without the
middleware, in turns, on messages of the form and size that vLLM 0.32 sends, and nothing else. On a whole
server they would drown: one request costs vLLM's frontend milliseconds.

**The ratio** compares two servers on the same machine: vLLM with our plugin, stat logger and middleware, as
the launcher starts it, and vLLM alone with the very arguments and environment that the launcher gave. Both stay
up; rounds of the same load go to one and to the other in turns, so that a busy machine slows both alike. The
interval is that of the mean of the rounds' log ratios (Student's t).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import click

from paceline_core import LatencyTarget, Targets
from paceline_runtime.vllm_plugin.middleware import App, Message, Receive, RequestLedger, Scope, Send
from paceline_runtime.vllm_plugin.serving import Serving
from paceline_runtime.vllm_plugin.settings import ModelFacts, ServerSettings

TARGETS = Targets(
    classes=(
        LatencyTarget(
            name="all",
            max_prompt_tokens=None,
            ttft_ms=2000,
            ttft_per_thousand_prompt_tokens_ms=0,
            tpot_ms=100,
        ),
    )
)
CHUNK = (
    b'data: {"id":"chatcmpl-b589e10fa9c6917b","object":"chat.completion.chunk","created":1795371121,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" capital"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
)
LAST = CHUNK.replace(b'"finish_reason":null', b'"finish_reason":"length"')
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello " * 200}]}).encode()
CHUNKS = 500


# -- Microseconds ------------------------------------------------------------------------------------------


class FakeServer:
    """Sends what vLLM sends for one request, with nothing behind it."""

    def __init__(self, *, chunks: int) -> None:
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        usage = SimpleNamespace(prompt_tokens=300, completion_tokens=self._chunks)
        scope["state"]["request_metadata"] = SimpleNamespace(request_id="r", final_usage_info=usage)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(self._chunks - 1):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": LAST, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Engine:
    def unfinished(self) -> int:
        return 3

    def prompt_tokens(self, request_id: str) -> int | None:
        return 300

    async def answer(self) -> None:
        return


def serving() -> Serving:
    settings = ServerSettings(
        service="bench",
        model=ModelFacts(uri="bundled://m", revision=None, attention_heads=9, kv_heads=3, weights_bytes=1),
        tensor_parallel_size=1,
        data_parallel_size=1,
        refused_layout=None,
        emulated=False,
        targets_path=Path("targets.json"),
        admin_socket=Path("admin.sock"),
        max_request_s=600,
        max_prompt_tokens=8000,
        routers=None,
        address=None,
    )
    made = Serving(settings, targets=TARGETS)
    made.engine = _Engine()
    made.open({"ready": 1.0}, canary=None)
    return made


async def request_us(app: App, *, requests: int) -> float:
    """Mean time of one request."""
    sent = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(_: Message) -> None:
        nonlocal sent
        sent += 1

    headers = [
        (b"host", b"pod"),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(BODY)),
    ]
    began_s = time.perf_counter()
    for _ in range(requests):
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": headers,
            "state": {},
        }
        await app(scope, receive, send)
    return (time.perf_counter() - began_s) / requests * 1e6


async def added_us(*, chunks: int, rounds: int, requests: int) -> list[float]:
    """What the middleware adds to a request of so many chunks, round by round."""
    bare: App = FakeServer(chunks=chunks)
    ours: App = RequestLedger(bare, serving())
    added = []
    for _ in range(rounds):
        alone = await request_us(bare, requests=requests)
        added.append(await request_us(ours, requests=requests) - alone)
    return added


async def microseconds(*, rounds: int) -> None:
    one = await added_us(chunks=1, rounds=rounds, requests=400)
    many = await added_us(chunks=CHUNKS, rounds=rounds, requests=4)
    per_chunk = [(more - statistics.median(one)) / (CHUNKS - 1) for more in many]
    print("| added by our middleware | median | worst round | aim |")
    print("|---|---|---|---|")
    print(f"| µs per request (one chunk) | {statistics.median(one):.1f} | {max(one):.1f} | < 300 |")
    print(f"| µs per further chunk | {statistics.median(per_chunk):.2f} | {max(per_chunk):.2f} | < 20 |")


# -- The ratio ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Server:
    name: str
    argv: list[str]
    env: dict[str, str]
    port: int
    log: Path
    tokens_per_s: list[float] = field(default_factory=list)
    cpu_us_per_token: list[float] = field(default_factory=list)
    """Of vLLM's API server process, in which all of ours runs too: hardly touched by what else uses the
    machine."""
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(self.argv, env=os.environ | self.env, stdout=log, stderr=log)

    async def wait_until_it_answers(self, http: aiohttp.ClientSession, path: str) -> None:
        while True:
            assert self.child is not None
            if self.child.poll() is not None:
                raise click.ClickException(f"{self.name} ended: {self.log.read_text()[-2000:]}")
            try:
                async with http.get(f"http://127.0.0.1:{self.port}{path}") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(1)

    def engine_pid(self) -> int:
        """vLLM's API server: the launcher's child, or what was started itself."""
        assert self.child is not None
        pid = self.child.pid
        if self.env.get("VLLM_PLUGINS") != "":
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return pid

    def cpu_us(self) -> float:
        """CPU time of the API server so far."""
        user, kernel = Path(f"/proc/{self.engine_pid()}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(kernel)) * 1e6 / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            self.child.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def servers(http: aiohttp.ClientSession, *, streams: int) -> AsyncIterator[tuple[Server, Server]]:
    """Bare vLLM and ours, both answering."""
    cache = Path(os.environ.get("PACELINE_CACHE") or Path.home() / ".cache" / "paceline")
    python = cache / "venvs" / "runtime-cpu" / "bin" / "python"
    models = cache / "models"
    if not python.exists() or not models.joinpath("smollm2-135m-instruct").exists():
        raise click.ClickException("run `make runtime-env models` first")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "targets.json").write_text(TARGETS.to_json())
        port = free_port()
        ours = Server(
            "paceline-runtime",
            _ours(python, port, streams, folder),
            {"PACELINE_BUNDLED_MODELS": str(models)},
            port,
            folder / "ours.log",
        )
        started = [ours]
        try:
            ours.start()
            await ours.wait_until_it_answers(http, "/ready")
            bare = _bare(ours, port=free_port(), log=folder / "bare.log")
            started.append(bare)
            bare.start()
            await bare.wait_until_it_answers(http, "/health")
            yield bare, ours
        finally:
            for one in started:
                one.end()


def _bare(ours: Server, *, port: int, log: Path) -> Server:
    """vLLM with the arguments and the environment that the launcher gave its own, less what is ours."""
    child = Path(f"/proc/{ours.engine_pid()}")
    argv = child.joinpath("cmdline").read_text().rstrip("\0").split("\0")
    for name, value in (("--middleware", None), ("--port", str(port))):
        at = argv.index(name)
        argv[at : at + 2] = [] if value is None else [name, value]
    given = dict(
        pair.split("=", 1) for pair in child.joinpath("environ").read_text().rstrip("\0").split("\0")
    )
    return Server("bare vLLM", argv, given | {"VLLM_PLUGINS": ""}, port, log)


def _ours(python: Path, port: int, streams: int, folder: Path) -> list[str]:
    return [
        *(
            str(python),
            "-m",
            "paceline_runtime.cli",
            "serve",
            "--model-uri",
            "bundled://smollm2-135m-instruct",
        ),
        *("--served-model-name", "m", "--max-model-len", "2048", "--kv-cache-bytes", str(2**28)),
        *("--max-num-seqs", str(streams), "--max-queued-requests", "64", "--max-prompt-tokens", "1500"),
        *("--max-output-tokens", "512", "--max-request-seconds", "60", "--device", "cpu", "--eager"),
        *("--service", "bench", "--targets", str(folder / "targets.json"), "--host", "127.0.0.1"),
        *("--port", str(port), "--admin-socket", str(folder / "admin.sock")),
    ]


async def load(http: aiohttp.ClientSession, server: Server, *, streams: int, tokens: int) -> float:
    """Tokens per second of so many streams at once, each read to its end."""

    async def stream(number: int) -> None:
        body: dict[str, Any] = {
            "model": "m",
            "messages": [{"role": "user", "content": f"Tell story number {number}."}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        async with http.post(f"http://127.0.0.1:{server.port}/v1/chat/completions", json=body) as response:
            text = await response.text()
        assert text.endswith("data: [DONE]\n\n"), text[-200:]

    began_s = time.perf_counter()
    await asyncio.gather(*map(stream, range(streams)))
    return streams * tokens / (time.perf_counter() - began_s)


async def ratio(*, rounds: int, streams: int, tokens: int) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as http, servers(http, streams=streams) as both:
        bare, ours = both
        for one in both:
            await load(http, one, streams=streams, tokens=tokens)
        for number in range(rounds):
            for one in both if number % 2 else (ours, bare):
                before_us = one.cpu_us()
                one.tokens_per_s.append(await load(http, one, streams=streams, tokens=tokens))
                one.cpu_us_per_token.append((one.cpu_us() - before_us) / (streams * tokens))
            print(f"round {number + 1} of {rounds}", end="\r", file=sys.stderr)
    print(
        f"\n{rounds} rounds of {streams} streams × {tokens} tokens each, in turns; load {os.getloadavg()[0]:.1f}\n"
    )
    print("| | tokens/s | CPU of the API server, µs per token |\n|---|---|---|")
    for one in both:
        row = statistics.median(one.tokens_per_s), statistics.median(one.cpu_us_per_token)
        print(f"| {one.name}, median | {row[0]:.1f} | {row[1]:.0f} |")
    throughput = ratio_of(bare.tokens_per_s, ours.tokens_per_s)
    print(f"| ratio (95 %) | {throughput} | {ratio_of(bare.cpu_us_per_token, ours.cpu_us_per_token)} |")


def ratio_of(before: list[float], after: list[float]) -> str:
    low, middle, high = interval([math.log(b / a) for a, b in zip(before, after, strict=True)])
    return f"{math.exp(middle):.3f} ({math.exp(low):.3f} to {math.exp(high):.3f})"


_T_975 = {4: 2.776, 9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045, 39: 2.023, 59: 2.001}


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean of the values, and the ends of its 95 % interval."""
    mean = statistics.fmean(values)
    freedom = len(values) - 1
    t = next((t for known, t in sorted(_T_975.items(), reverse=True) if known <= freedom), 12.7)
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean, mean + half


@click.command()
@click.option("--rounds", type=click.IntRange(min=5), default=20, show_default=True)
@click.option("--streams", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--engine/--no-engine", default=True, help="Compare two servers too.")
def main(rounds: int, streams: int, tokens: int, engine: bool) -> None:
    """Print what our runtime adds to bare vLLM."""
    asyncio.run(microseconds(rounds=rounds))
    if engine:
        asyncio.run(ratio(rounds=rounds, streams=streams, tokens=tokens))


if __name__ == "__main__":
    main()
