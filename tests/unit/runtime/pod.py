"""An emulated pod inside the test's own event loop: the real middleware, routes, sockets and HTTP server.

Only the engine's time is not real. `serving` and `engine` are open to the test; requests go over TCP as a
client's would.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import uvicorn

from paceline_core import LatencyTarget, Outcome, Targets
from paceline_runtime.emulator.app import EmulatedServer
from paceline_runtime.emulator.current import admin_routes
from paceline_runtime.emulator.process import build
from paceline_runtime.launch.emulation import ConstantStep, Emulation
from paceline_runtime.launch.options import ServeOptions
from paceline_runtime.vllm_plugin import admin
from paceline_runtime.vllm_plugin.drain import Drain, DrainTimes
from paceline_runtime.vllm_plugin.guest_server import GuestServer
from paceline_runtime.vllm_plugin.middleware import App, RequestLedger
from paceline_runtime.vllm_plugin.routers import Routers
from paceline_runtime.vllm_plugin.serving import Serving
from paceline_runtime.vllm_plugin.settings import ModelFacts, ServerSettings

MODEL = "m"
HOUR_MS = 3_600_000


def target(
    *, ttft_ms: int = HOUR_MS, tpot_ms: int = HOUR_MS, name: str = "all", up_to: int | None = None
) -> LatencyTarget:
    return LatencyTarget(
        name=name,
        max_prompt_tokens=up_to,
        ttft_ms=ttft_ms,
        ttft_per_thousand_prompt_tokens_ms=0,
        tpot_ms=tpot_ms,
    )


EASY = Targets(classes=(target(),))
"""Nothing is ever late."""


def options(folder: Path, **changes: Any) -> ServeOptions:
    base: dict[str, Any] = {
        "model_uri": "bundled://smollm2-135m-instruct",
        "served_names": (MODEL,),
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "max_model_tokens": 2048,
        "weights": "Auto",
        "weights_source": "Auto",
        "kv_cache_dtype": "Auto",
        "kv_cache_bytes": 2**28,
        "prefix_caching": "Enabled",
        "max_sequences": 8,
        "max_batched_tokens": None,
        "max_queued_requests": 8,
        "max_queued_tokens": 100_000,
        "max_prompt_tokens": 2047,
        "max_output_tokens": 512,
        "max_request_s": 30.0,
        "device": "cpu",
        "service": "demo",
        "targets_path": folder / "targets.json",
        "routers": None,
        "host": "127.0.0.1",
        "port": 8000,
        "admin_socket": folder / "admin.sock",
        "canary_reference": folder / "canary.json",
        "layout_file": None,
        "live_port": None,
        "trust_remote_code": False,
        "eager": True,
        "emulation": Emulation(timing=ConstantStep(step_s=0.005), stages_s={}),
        "extra_args": (),
    }
    return ServeOptions(**(base | changes))


def settings(given: ServeOptions, **changes: Any) -> ServerSettings:
    base: dict[str, Any] = {
        "service": given.service,
        "model": ModelFacts(
            uri=given.model_uri, revision=None, attention_heads=9, kv_heads=3, weights_bytes=None
        ),
        "tensor_parallel_size": given.tensor_parallel_size,
        "data_parallel_size": given.data_parallel_size,
        "refused_layout": None,
        "emulated": True,
        "targets_path": given.targets_path,
        "admin_socket": given.admin_socket,
        "max_request_s": given.max_request_s,
        "max_prompt_tokens": given.checked_prompt_tokens,
        "routers": given.routers,
        "address": None,
    }
    return ServerSettings(**(base | changes))


@dataclass(slots=True)
class Pod:
    url: str
    serving: Serving
    server: EmulatedServer
    http: aiohttp.ClientSession
    admin: aiohttp.ClientSession

    def count(self, outcome: Outcome, *, latency_class: str = "all") -> int:
        return self.serving.ledger.counts()[latency_class, outcome]

    @property
    def counted(self) -> dict[tuple[str, str], int]:
        """All counts that are not 0."""
        counts = self.serving.ledger.counts()
        return {(name, outcome.value): count for (name, outcome), count in counts.items() if count}

    def ask(self, *, words: Any = "hello", path: str = "/v1/chat/completions", **fields: Any) -> Any:
        """A chat request, as a context manager of aiohttp. Streams unless told otherwise."""
        prompt: dict[str, Any] = {}
        if path == "/v1/chat/completions":
            prompt = {"messages": [{"role": "user", "content": words}]}
        elif path == "/v1/completions":
            prompt = {"prompt": words}
        return self.http.post(self.url + path, json={"model": MODEL, "stream": True, **prompt, **fields})

    async def answer(self, **fields: Any) -> tuple[int, str]:
        async with self.ask(**fields) as response:
            return response.status, await response.text()

    async def emulate(self, **changes: Any) -> int:
        """Tell the emulated GPU how to behave; the status of the answer."""
        async with self.admin.put("http://pod/emulation", json=changes) as response:
            return response.status

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(self.url + path) as response:
            return response.status, await response.text()

    async def state(self) -> dict[str, Any]:
        async with self.admin.get("http://pod/state") as response:
            return dict(await response.json())

    async def drain(self) -> None:
        async with self.admin.post("http://pod/drain") as response:
            assert response.status == 202

    async def pause(self, order: str) -> int:
        async with self.admin.post("http://pod/pause", json={"order": order}) as response:
            return response.status

    async def idle(self) -> None:
        """Wait until the server is through with every request: a client is told of the end a little
        earlier."""
        await until(lambda: not self.serving.lifecycle.in_flight)


@asynccontextmanager
async def pod(
    folder: Path,
    *,
    targets: Targets = EASY,
    open_now: bool = True,
    clock: Callable[[], float] = monotonic,
    times: DrainTimes | None = None,
    wrap: Callable[[App], App] | None = None,
    routers: Routers | None = None,
    address: str | None = None,
    emulation_step_s: float = 0.005,
    emulation: Emulation | None = None,
    **changes: Any,
) -> AsyncIterator[Pod]:
    """`wrap` puts something between the middleware and the engine's routes."""
    emulation = emulation or Emulation(timing=ConstantStep(step_s=emulation_step_s), stages_s={})
    given = options(folder, emulation=emulation, **changes)
    serving = Serving(settings(given, address=address), targets=targets, clock=clock)
    emulated = build(given, serving)
    inner: App = emulated.server.app
    app = RequestLedger(wrap(inner) if wrap else inner, serving)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False)
    web = GuestServer(config)
    drain = Drain(serving, routers=routers, times=times)
    bound = admin.bind(given.admin_socket)
    tasks = [
        asyncio.create_task(web.serve(sockets=[listener])),
        asyncio.create_task(
            admin.listen(admin.Admin(serving, drain=drain, more=admin_routes(emulated.current)), on=bound)
        ),
    ]
    if open_now:
        serving.open({"ready": 1.0}, canary=None)
    connector = aiohttp.UnixConnector(path=str(given.admin_socket))
    async with aiohttp.ClientSession() as http, aiohttp.ClientSession(connector=connector) as admin_http:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await until(lambda: web.started)
        try:
            yield Pod(url=url, serving=serving, server=emulated.server, http=http, admin=admin_http)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    since_s = monotonic()
    while not condition():
        if monotonic() - since_s > timeout_s:
            raise AssertionError(f"not within {timeout_s} s")
        await asyncio.sleep(0.005)


def events(body: str) -> list[dict[str, Any]]:
    """The JSON events of a stream, without [DONE]."""
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
