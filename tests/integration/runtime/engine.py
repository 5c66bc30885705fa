"""Real vLLM on this machine's CPU, started by the launcher as in a pod, in vLLM's own environment.

The client side (this process) runs in the developers' environment: the two meet over TCP and the admin
socket only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

MODEL = "smollm"
START_S = 600
"""A start takes half a minute on two idle cores, and several on busy ones."""

HOUR_MS = 3_600_000
EASY = {"name": "all", "timeToFirstTokenMilliseconds": HOUR_MS, "timePerOutputTokenMilliseconds": HOUR_MS}


def cache() -> Path:
    return Path(os.environ.get("PACELINE_CACHE") or Path.home() / ".cache" / "paceline")


def program() -> Path:
    """`paceline-runtime` of vLLM's environment; skips the test where it was not made."""
    found = cache() / "venvs" / "runtime-cpu" / "bin" / "paceline-runtime"
    if not found.exists():
        pytest.skip("vLLM's environment is missing: make runtime-env")
    if not (cache() / "models" / "smollm2-135m-instruct" / "config.json").exists():
        pytest.skip("the bundled model is missing: make models")
    return found


class Engine:
    def __init__(self, folder: Path, *more: str, classes: list[dict[str, Any]] | None = None) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "targets.json").write_text(json.dumps({"latencyClasses": classes or [EASY]}))
        arguments = [
            *("serve", "--model-uri", "bundled://smollm2-135m-instruct", "--served-model-name", MODEL),
            *("--max-model-len", "1024", "--kv-cache-bytes", str(2**27), "--max-num-seqs", "2"),
            *("--max-queued-requests", "2", "--max-queued-tokens", "4000", "--max-prompt-tokens", "700"),
            *("--max-output-tokens", "256", "--max-request-seconds", "300", "--device", "cpu", "--eager"),
            *("--service", "demo", "--targets", str(folder / "targets.json"), "--host", "127.0.0.1"),
            *("--port", str(self.port), "--admin-socket", str(folder / "admin.sock"), *more),
        ]
        environ = {
            **os.environ,
            "PACELINE_BUNDLED_MODELS": str(cache() / "models"),
            "PACELINE_TERMINATION_LOG": str(folder / "termination"),
            "HOME": str(folder),
        }
        with (folder / "log").open("wb") as log:
            command = ["nice", str(program()), *arguments]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)

    def wait_ready(self) -> None:
        since_s = time.monotonic()
        while self.status("/ready") != 200:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log[-3000:]}"
            assert time.monotonic() - since_s < START_S, self.log[-3000:]
            time.sleep(0.5)

    def status(self, path: str) -> int | None:
        async def ask() -> int:
            async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
                return response.status

        try:
            return asyncio.run(asyncio.wait_for(ask(), 10))
        except (OSError, aiohttp.ClientError, TimeoutError):
            return None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def verdict(self) -> dict[str, str]:
        return dict(json.loads((self.folder / "termination").read_text()))

    def child(self, name: str) -> int:
        """Process id of a process of vLLM by the title it gives itself."""
        found = subprocess.run(
            ["pgrep", "-f", f"^{name}", "--session", str(self._session)],
            capture_output=True,
            text=True,
            check=False,
        )
        pids = found.stdout.split()
        assert len(pids) == 1, found
        return int(pids[0])

    @property
    def _session(self) -> int:
        """The engine leads a session of its own, below the launcher."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()


@contextmanager
def engine(folder: Path, *more: str, **settings: Any) -> Iterator[Engine]:
    one = Engine(folder, *more, **settings)
    try:
        yield one
    finally:
        one.end()


class Client:
    """Requests to one engine, as a client of the service would send them."""

    def __init__(self, one: Engine, http: aiohttp.ClientSession, admin: aiohttp.ClientSession) -> None:
        self.url = one.url
        self.http = http
        self._admin = admin

    def ask(
        self, *, words: str = "Name three colours.", path: str = "/v1/chat/completions", **fields: Any
    ) -> Any:
        prompt: dict[str, Any] = {"messages": [{"role": "user", "content": words}]}
        if path == "/v1/completions":
            prompt = {"prompt": words}
        elif path == "/v1/responses":
            prompt = {"input": words}
        return self.http.post(self.url + path, json={"model": MODEL, "temperature": 0, **prompt, **fields})

    async def answer(self, **fields: Any) -> tuple[int, str]:
        async with self.ask(**fields) as response:
            return response.status, await response.text()

    async def counts(self) -> dict[str, float]:
        """Counts of our ledger over all classes, by outcome."""
        totals: dict[str, float] = {}
        for labels, value in (await self.series("paceline_requests_total")).items():
            outcome = dict(labels)["outcome"]
            totals[outcome] = totals.get(outcome, 0) + value
        return totals

    async def series(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        async with self.http.get(self.url + "/metrics") as response:
            page = await response.text()
        return {
            frozenset(sample.labels.items()): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name
        }

    async def state(self) -> dict[str, Any]:
        async with self._admin.get("http://pod/state") as response:
            return dict(await response.json())

    async def drain(self) -> None:
        async with self._admin.post("http://pod/drain") as response:
            assert response.status == 202

    async def retarget(self, *classes: dict[str, Any]) -> None:
        async with self._admin.put("http://pod/targets", json={"latencyClasses": list(classes)}) as response:
            assert response.status == 200, await response.text()

    async def settled(self) -> None:
        """Wait until every request has been counted."""
        await until(self._idle)

    async def _idle(self) -> bool:
        return bool((await self.state())["inFlight"] == 0)


@asynccontextmanager
async def client_of(one: Engine) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.UnixConnector(path=str(one.folder / "admin.sock"))
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as admin,
    ):
        yield Client(one, http, admin)


async def until(condition: Callable[[], Any], *, timeout_s: float = 120, every_s: float = 0.1) -> None:
    since_s = time.monotonic()
    while not await condition():
        if time.monotonic() - since_s > timeout_s:
            raise AssertionError(f"not within {timeout_s} s")
        await asyncio.sleep(every_s)
