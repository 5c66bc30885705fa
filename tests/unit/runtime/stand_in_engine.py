"""Stands in for vLLM's server as the launcher's child: the real middleware, probes and admin socket, canned text.

Run by `test_launcher.py` as a module. The size in FAIL_AT_SIZE does not start.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import uvicorn

from paceline_runtime.emulator.process import build
from paceline_runtime.vllm_plugin import admin
from paceline_runtime.vllm_plugin.drain import Drain
from paceline_runtime.vllm_plugin.guest_server import GuestServer
from paceline_runtime.vllm_plugin.middleware import RequestLedger
from paceline_runtime.vllm_plugin.serving import current
from tests.unit.runtime.pod import options


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--data-parallel-size", type=int, default=1)
    given, _ = parser.parse_known_args()
    if str(given.tensor_parallel_size) == os.environ.get("FAIL_AT_SIZE"):
        sys.exit("RuntimeError: out of memory")
    serving = current()
    asked = replace(
        options(Path(serving.settings.targets_path).parent),
        tensor_parallel_size=given.tensor_parallel_size,
        data_parallel_size=given.data_parallel_size,
    )
    pod = build(asked, serving)
    config = uvicorn.Config(
        RequestLedger(pod.server.app, serving),
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
