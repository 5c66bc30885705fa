"""The emulated engine as a process: the same start, drain and end as a real one, in one small process.

Called by `paceline-runtime serve --emulate`. There is no child to be parent of: the server is this process, and starts
itself anew where it is told another layout.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import anyio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from paceline_core import Canary
from paceline_core.batch import Batch, Step
from paceline_runtime.emulator.app import EmulatedModel, EmulatedServer
from paceline_runtime.emulator.cache_config import cache_config_labels
from paceline_runtime.emulator.current import Current, admin_routes
from paceline_runtime.emulator.engine import Engine, QueueLimits
from paceline_runtime.emulator.event_loop import punctual_event_loop
from paceline_runtime.emulator.metrics import EngineMetrics
from paceline_runtime.emulator.pace import Pace
from paceline_runtime.emulator.ranks import Ranks
from paceline_runtime.emulator.start import start
from paceline_runtime.emulator.step_loop import StepLoop
from paceline_runtime.emulator.step_timing import MAX_BATCHED_TOKENS, described, step_timing
from paceline_runtime.launch.admin_client import AdminClient
from paceline_runtime.launch.buckets import histogram_buckets
from paceline_runtime.launch.canary_check import checked
from paceline_runtime.launch.failure import Refused, Stage, StartFailure, report
from paceline_runtime.launch.launcher import quit_early, read_targets, server_settings
from paceline_runtime.launch.model_source import resolve_unloaded
from paceline_runtime.launch.options import ServeOptions
from paceline_runtime.launch.pod_layout import PodLayout
from paceline_runtime.launch.vllm_args import KEEP_ALIVE_S
from paceline_runtime.vllm_plugin import admin, targets_file
from paceline_runtime.vllm_plugin.drain import Drain
from paceline_runtime.vllm_plugin.exposition import PacelineCollector
from paceline_runtime.vllm_plugin.guest_server import GuestServer
from paceline_runtime.vllm_plugin.lifecycle import Phase
from paceline_runtime.vllm_plugin.middleware import RequestLedger
from paceline_runtime.vllm_plugin.serving import Serving

log = structlog.get_logger(__name__)

_RIGHT, _WRONG = (-2.0,) * 32, (-6.0,) * 32
"""Log-probabilities of an emulated canary."""


def run(options: ServeOptions) -> int:
    """Until SIGTERM; the exit code of the container."""
    signal.signal(signal.SIGTERM, quit_early)
    PodLayout.heed_signals()
    layout = PodLayout.of(options)
    options = options.laid_out(layout.current)
    try:
        targets = read_targets(options)
        settings = server_settings(options, model=resolve_unloaded(options), refused_layout=layout.refused)
        serving = Serving(settings, targets=targets)
        pod = build(options, serving)
    except (StartFailure, Refused) as error:
        if layout.failed(str(error)):
            layout.restart()
        log.error("start_failed", error=str(error))
        return report(error)
    log.warning(
        "emulated",
        says="no model is loaded: answers are canned, only their pace is meant to be real",
        **pod.emulated,
    )
    with asyncio.Runner(loop_factory=punctual_event_loop) as runner:
        runner.run(_serve(pod, serving, options, layout=layout))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedPod:
    server: EmulatedServer
    current: Current
    emulated: Mapping[str, str]
    pace: Pace
    """Of the first rank."""


def build(options: ServeOptions, serving: Serving) -> EmulatedPod:
    """Raises Refused."""
    emulation = options.emulation
    assert emulation is not None
    timing = step_timing(
        emulation,
        tensor_parallel_size=options.tensor_parallel_size,
        max_sequences=options.max_sequences,
        max_model_tokens=options.max_model_tokens,
    )
    prefix_caching = options.prefix_caching == "Enabled"
    emulated = described(emulation, tensor_parallel_size=options.tensor_parallel_size)
    registry = CollectorRegistry()
    registry.register(PacelineCollector(serving))
    metrics = EngineMetrics(
        model=options.served_names[0],
        buckets=histogram_buckets(
            serving.ledger.targets,
            max_prompt_tokens=options.max_prompt_tokens,
            max_model_tokens=options.max_model_tokens,
        ),
        cache_config=cache_config_labels(
            kv_cache_tokens=timing.kv_cache_tokens, prefix_caching=prefix_caching
        ),
        emulated=emulated,
        registry=registry,
        ranks=options.data_parallel_size,
    )
    current = Current(emulation.conditions, clock=serving.clock)
    paces = [
        Pace(timing, current, seed=emulation.seed + number) for number in range(options.data_parallel_size)
    ]
    engine = Ranks(
        [
            Engine(
                Batch(
                    max_sequences=options.max_sequences,
                    max_batched_tokens=options.max_batched_tokens or MAX_BATCHED_TOKENS,
                    kv_cache_tokens=timing.kv_cache_tokens,
                ),
                pace,
                limits=QueueLimits(
                    max_unfinished=options.max_unfinished, max_queued_tokens=options.max_queued_tokens
                ),
                prefix_caching=prefix_caching,
                metrics=rank,
                on_work=StepLoop(
                    current, on_lag=metrics.lagged, on_step=serving.heartbeat.beat, die=_die
                ).wake,
            )
            for rank, pace in zip(metrics.ranks, paces, strict=True)
        ],
        current=current,
    )
    serving.engine = engine
    server = EmulatedServer(
        model=EmulatedModel(
            served_names=options.served_names,
            max_model_tokens=options.max_model_tokens,
            max_output_tokens=options.max_output_tokens,
            prefix_hit_share=emulation.prefix_hit_share if prefix_caching else 0.0,
            emulated=emulated,
        ),
        engine=engine,
        current=current,
        serving=serving,
        metrics=metrics,
        registry=registry,
    )
    return EmulatedPod(server=server, current=current, emulated=emulated, pace=paces[0])


async def _serve(pod: EmulatedPod, serving: Serving, options: ServeOptions, *, layout: PodLayout) -> None:
    assert options.emulation is not None
    async with anyio.create_task_group():
        pass  # imports its back end now: the first stream would wait for that longer than for its first token
    # What is here now stays: the collector need not walk through it again in the middle of a step.
    gc.freeze()
    config = uvicorn.Config(
        RequestLedger(pod.server.app, serving),
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
        asyncio.create_task(
            admin.listen(
                admin.Admin(serving, drain=Drain(serving), more=admin_routes(pod.current)), on=socket
            )
        ),
        asyncio.create_task(targets_file.follow(serving)),
        asyncio.create_task(
            start(
                serving,
                options.emulation,
                current=pod.current,
                die=_die,
                canary=partial(_canary, options, serving, pod),
                opened=layout.opened,
            )
        ),
    ]
    if options.layout_file is not None:
        watch = threading.Thread(target=_follow, args=(layout, serving, options), name="layout", daemon=True)
        watch.start()
    async with AsyncExitStack() as stack:
        for task in background:
            stack.callback(task.cancel)
        await uvicorn_server.serve()


def _follow(layout: PodLayout, serving: Serving, options: ServeOptions) -> None:
    layout.wait_for_another(
        AdminClient(options.admin_socket), is_open=lambda: serving.lifecycle.phase is not Phase.LOADING
    )
    layout.restart()


def _end(server: GuestServer) -> None:
    log.info("stop")
    server.end()


def _canary(options: ServeOptions, serving: Serving, pod: EmulatedPod) -> Canary | None:
    """The answers are made up, the speed is the table's. Refused, the process ends: nothing was served by it."""
    made_up = _WRONG if pod.current.conditions.fault == "WrongAnswers" else _RIGHT
    alone = Step(decodes=(0,), prefills=(), decode_context_tokens=1)
    try:
        return checked(made_up, token_s=pod.pace.step_s(alone), options=options, model=serving.settings.model)
    except Refused as error:
        log.error("engine_failed", stage="warmup", error=str(error))
        os._exit(report(error))


def _die(stage: Stage) -> None:
    """As an engine that crashes takes its server with it: at once, streams and all."""
    failure = StartFailure("the emulated engine died, as it was told to", stage=stage)
    log.error("engine_failed", stage=stage, error=str(failure))
    os._exit(report(failure))
