"""Stands in for vLLM's server as the launcher's child: the real middleware, probes and admin socket, canned text.

Run by `test_launcher.py` as a module. The size in FAIL_AT_SIZE does not start, that in WRONG_AT_SIZE computes nonsense.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from paceline_runtime.emulator.process import build
from paceline_runtime.vllm_plugin import admin
from paceline_runtime.vllm_plugin.drain import Drain
from paceline_runtime.vllm_plugin.guest_server import GuestServer
from paceline_runtime.vllm_plugin.middleware import RequestLedger
from paceline_runtime.vllm_plugin.serving import current
from tests.unit.runtime.pod import options


class LogProbabilities:
    """Answers with those of two tokens where a completion asks for those of its prompt, as vLLM does."""

    def __init__(self, app: Any, *, off_by: float) -> None:
        self._app = app
        self._off_by = off_by

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/completions":
            await self._app(scope, receive, send)
            return
        message = await receive()
        if "prompt_logprobs" not in json.loads(message["body"]):
            read = [message]

            async def again() -> Any:
                return read.pop() if read else await receive()

            await self._app(scope, again, send)
            return
        tokens = [None, *({"7": {"logprob": one - self._off_by}} for one in (-1.5, -2.5))]
        body = json.dumps({"choices": [{"prompt_logprobs": tokens}]}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--data-parallel-size", type=int, default=1)
    given, _ = parser.parse_known_args()
    if str(given.tensor_parallel_size) == os.environ.get("FAIL_AT_SIZE"):
        sys.exit("RuntimeError: out of memory")
    is_wrong = str(given.tensor_parallel_size) == os.environ.get("WRONG_AT_SIZE")
    serving = current()
    asked = replace(
        options(Path(serving.settings.targets_path).parent),
        tensor_parallel_size=given.tensor_parallel_size,
        data_parallel_size=given.data_parallel_size,
    )
    pod = build(asked, serving)
    config = uvicorn.Config(
        RequestLedger(LogProbabilities(pod.server.app, off_by=4.0 if is_wrong else 0.0), serving),
        host="127.0.0.1",
        port=given.port,
        lifespan="off",
        log_level="warning",
    )
    server = GuestServer(config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.end)
    socket = admin.bind(serving.settings.admin_socket)
    listening = asyncio.create_task(admin.listen(admin.Admin(serving, drain=Drain(serving)), on=socket))
    await server.serve()
    listening.cancel()


asyncio.run(main())
