"""The emulated engine as a process: the same start, drain and end as a real one, in one small process.

Called by `paceline-runtime serve --emulate`. There is no child to be parent of: the server is this process.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from contextlib import AsyncExitStack

import structlog
import uvicorn

from paceline_runtime.emulator.app import EmulatedModel, EmulatedServer
from paceline_runtime.emulator.engine import Limits
from paceline_runtime.launch.buckets import histogram_buckets
from paceline_runtime.launch.failure import Refused, StartFailure, report
from paceline_runtime.launch.launcher import quit_early, read_targets, server_settings
from paceline_runtime.launch.model_source import resolve_unloaded
from paceline_runtime.launch.options import ServeOptions
from paceline_runtime.launch.vllm_args import KEEP_ALIVE_S
from paceline_runtime.vllm_plugin import admin, targets_file
from paceline_runtime.vllm_plugin.drain import Drain
from paceline_runtime.vllm_plugin.guest_server import GuestServer
from paceline_runtime.vllm_plugin.middleware import RequestLedger
from paceline_runtime.vllm_plugin.serving import Serving

log = structlog.get_logger(__name__)


def run(options: ServeOptions) -> int:
    """Until SIGTERM; the exit code of the container."""
    signal.signal(signal.SIGTERM, quit_early)
    try:
        targets = read_targets(options)
        model = resolve_unloaded(options)
    except (StartFailure, Refused) as error:
        log.error("start_failed", error=str(error))
        return report(error)
    serving = Serving(server_settings(options, model=model), targets=targets)
    server = build(options, serving)
    log.warning(
        "emulated", says="no model is loaded: answers are canned, only their pace is meant to be real"
    )
    asyncio.run(_serve(server, serving, options))
    return 0


def build(options: ServeOptions, serving: Serving) -> EmulatedServer:
    assert options.emulation is not None
    return EmulatedServer(
        model=EmulatedModel(
            served_names=options.served_names,
            max_model_tokens=options.max_model_tokens,
            max_output_tokens=options.max_output_tokens,
        ),
        limits=Limits(
            step_s=options.emulation.step_s,
            max_sequences=options.max_sequences,
            max_unfinished=options.max_unfinished,
            max_queued_tokens=options.max_queued_tokens,
        ),
        serving=serving,
        buckets=histogram_buckets(
            serving.ledger.targets,
            max_prompt_tokens=options.max_prompt_tokens,
            max_model_tokens=options.max_model_tokens,
        ),
    )


async def _serve(server: EmulatedServer, serving: Serving, options: ServeOptions) -> None:
    config = uvicorn.Config(
        RequestLedger(server.app, serving),
        host=options.host,
        port=options.port,
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        # Like vLLM with --shutdown-timeout: SIGTERM ends the process when its requests have ended.
        timeout_graceful_shutdown=math.ceil(options.max_request_s),
    )
    uvicorn_server = GuestServer(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _end, uvicorn_server)
    socket = admin.bind(options.admin_socket)
    background = [
        asyncio.create_task(admin.listen(admin.Admin(serving, drain=Drain(serving)), on=socket)),
        asyncio.create_task(targets_file.follow(serving)),
        asyncio.create_task(_start(serving, options)),
    ]
    async with AsyncExitStack() as stack:
        for task in background:
            stack.callback(task.cancel)
        await uvicorn_server.serve()


def _end(server: uvicorn.Server) -> None:
    log.info("stop")
    server.should_exit = True


async def _start(serving: Serving, options: ServeOptions) -> None:
    assert options.emulation is not None
    began_s = time.monotonic()
    await asyncio.sleep(options.emulation.start_s)
    waited_s = time.monotonic() - began_s
    serving.open({"weights": waited_s, "ready": waited_s})
    log.info("ready", ready_s=round(waited_s, 2))
