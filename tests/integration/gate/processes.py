"""The real processes under test: `vllm-router` and the gate, each a child of the test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from paceline_runtime.gate import router as router_process

SELECTOR = "paceline.dev/service=s,paceline.dev/component=engine"
NAMESPACE = "tenant"
PROGRAM = str(Path(sys.executable).parent / "paceline-runtime")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def wait_until(
    what: str, condition: Callable[[], bool], *, timeout_s: float = 10, every_s: float = 0.02
) -> float:
    """Wait, and return how long it took."""
    since_s = time.monotonic()
    while not condition():
        if time.monotonic() - since_s > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(every_s)
    return time.monotonic() - since_s


@dataclass(slots=True)
class Child:
    """A process whose output goes to a file."""

    argv: list[str]
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            environ = {**os.environ, **self.environ}
            self._process = subprocess.Popen(self.argv, stdout=log, stderr=subprocess.STDOUT, env=environ)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_code(self, *, timeout_s: float = 20) -> int:
        process = self._process
        assert process is not None
        await wait_until("the process ended", lambda: process.poll() is not None, timeout_s=timeout_s)
        return process.returncode

    async def stop(self) -> None:
        if self.running:
            self.signal(signal.SIGKILL)
            await self.exit_code()

    def output(self) -> str:
        return self.log.read_text()


@dataclass(slots=True)
class Stack:
    """One router and one gate before it."""

    router: Child
    gate: Child
    router_url: str
    url: str
    ops_url: str
    port: int
    gate_socket: Path
    session: aiohttp.ClientSession

    async def listed(self) -> set[str]:
        async with self.session.get(f"{self.router_url}/list_workers") as response:
            return {url.removeprefix("http://") for url in (await response.json())["urls"]}

    async def router_post(self, route: str, *, worker: str) -> None:
        """An admin route of the router, called beside the gate."""
        async with self.session.post(
            f"{self.router_url}/{route}", params={"url": f"http://{worker}"}
        ) as done:
            assert done.status == 200, await done.text()

    async def wait_listed(self, workers: set[str], *, timeout_s: float = 15) -> float:
        since_s = time.monotonic()
        seen: set[str] = set()
        while time.monotonic() - since_s < timeout_s:
            try:
                seen = await self.listed()
            except aiohttp.ClientError:
                seen = set()
            if seen == workers:
                return time.monotonic() - since_s
            await asyncio.sleep(0.05)
        raise AssertionError(f"the router lists {seen}, not {workers}\n{self.gate.output()}")

    async def ready(self) -> int:
        async with self.session.get(f"{self.ops_url}/readyz") as response:
            return response.status

    async def wait_answers(self) -> None:
        """Wait until both processes take requests."""
        for url in (f"{self.ops_url}/livez", f"{self.router_url}/list_workers"):
            for _ in range(200):
                try:
                    async with self.session.get(url) as response:
                        assert response.status == 200
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def wait_ready(self) -> None:
        for _ in range(1200):
            try:
                if await self.ready() == 200:
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(f"the gate is not ready\n{self.gate.output()}\n{self.router.output()}")

    async def metric(self, name: str) -> float:
        async with self.session.get(f"{self.ops_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.rsplit(" ", 1)[0] == name]
        assert found, f"no series {name}"
        return found[0]

    async def ask(
        self, *, tokens: int = 3, stream: bool = False, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        body = chat(tokens=tokens, stream=stream)
        async with self.session.post(
            f"{self.url}/v1/chat/completions", json=body, headers=headers
        ) as response:
            return response.status, dict(response.headers), await response.read()


def chat(*, tokens: int = 3, stream: bool = False) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": tokens,
        "stream": stream,
    }


@asynccontextmanager
async def stack(
    folder: Path,
    *,
    workers: Sequence[str] | None = (),
    api_server: str | None = None,
    engine_port: int = 8000,
    kubeconfig: Path | None = None,
    gate_args: Sequence[str] = (),
    max_request_s: int = 60,
    gate_address: tuple[str, int] | None = None,
    gate_environ: dict[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """Start both. `workers` are static ones; with `api_server` the gate finds pods there, and with
    `kubeconfig` the router does. `gate_address` is the IP and ops port of the gate where they matter."""
    port, router_port = free_port(), free_port()
    ip, ops_port = gate_address or ("127.0.0.1", free_port())
    argv = router_process.argv(
        namespace=NAMESPACE,
        selector=SELECTOR,
        policy="PowerOfTwo",
        max_request_s=max_request_s,
        port=router_port,
        engine_port=engine_port,
    )
    # Tests run side by side; in a pod the port is the router's alone.
    argv[argv.index("--prometheus-port") + 1] = str(free_port())
    gate_socket = folder / "gate.sock"
    if api_server is None:
        assert workers is not None
        finding = ["--no-discovery", *(f"--worker={worker}" for worker in workers)]
    else:
        finding = [f"--api-server={api_server}", f"--namespace={NAMESPACE}", f"--selector={SELECTOR}"]
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
    made = Stack(
        router=Child(
            argv,
            folder / "router.log",
            {**router_process.ENVIRONMENT, "KUBECONFIG": str(kubeconfig or folder / "none")},
        ),
        gate=Child(
            [
                *(PROGRAM, "gate"),
                *("--router", f"http://127.0.0.1:{router_port}"),
                *("--host", ip, "--port", str(port), "--ops-port", str(ops_port)),
                *("--service", "s", "--engine-port", str(engine_port)),
                *("--max-request-seconds", str(max_request_s)),
                *("--socket", str(gate_socket)),
                *finding,
                *gate_args,
            ],
            folder / "gate.log",
            gate_environ or {},
        ),
        router_url=f"http://127.0.0.1:{router_port}",
        url=f"http://{ip}:{port}",
        ops_url=f"http://{ip}:{ops_port}",
        port=port,
        gate_socket=gate_socket,
        session=session,
    )
    made.router.start()
    made.gate.start()
    try:
        await made.wait_answers()
        yield made
    finally:
        await made.gate.stop()
        await made.router.stop()
        await session.close()
