"""Start the engine of one pod and stay beside it until it ends. The first process of the container.

    resolve and refuse ─▶ spawn vLLM ─▶ wait until it answers ─▶ warm up ─▶ open (ready) ─▶ reap until it ends
          ▲──────────────── start anew ◀── paused and ended ◀── another layout is ordered ─────┘

The main thread reaps and gets the signals; a second thread brings the engine up. It answers no request
itself and measures none. Whatever ends the start early leaves a verdict in the termination log.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

import structlog

from paceline_core import Canary, Targets, TargetsError
from paceline_runtime.launch import machine
from paceline_runtime.launch.admin_client import AdminClient, NoAnswer, NoServer
from paceline_runtime.launch.buckets import histogram_buckets
from paceline_runtime.launch.canary_check import checked
from paceline_runtime.launch.cpu_threads import deal_cores
from paceline_runtime.launch.drain_command import until_drained
from paceline_runtime.launch.engine_process import EngineProcess
from paceline_runtime.launch.failure import Refused, StartFailure, report
from paceline_runtime.launch.live_port import serve_liveness
from paceline_runtime.launch.model_source import Model, resolve
from paceline_runtime.launch.options import ServeOptions
from paceline_runtime.launch.pod_layout import PodLayout
from paceline_runtime.launch.start_clock import StartClock
from paceline_runtime.launch.vllm_args import MODULE, vllm_args, vllm_env
from paceline_runtime.launch.warmup import LoopbackServer
from paceline_runtime.vllm_plugin.settings import ModelFacts, RefusedLayout, ServerSettings

log = structlog.get_logger(__name__)

_ENDING_S = 15.0
"""An engine that has no request to finish may take this long to end after SIGTERM."""

_ASK_AGAIN_S = 0.5


def run(options: ServeOptions) -> int:
    """Until the engine ends; the exit code of the container."""
    clock = StartClock(clock=time.monotonic)
    signal.signal(signal.SIGTERM, quit_early)
    signal.signal(signal.SIGINT, quit_early)
    PodLayout.heed_signals()
    layout = PodLayout.of(options)
    options = options.laid_out(layout.current)
    try:
        _check_port(options)
        targets = read_targets(options)
        launch = _Launch(options, clock=clock, targets=targets, model=resolve(options), layout=layout)
    except (StartFailure, Refused) as error:
        if layout.failed(str(error)):
            layout.restart()
        log.error("start_failed", stage=clock.stage, error=str(error))
        return report(error)
    return launch.run()


def _check_port(options: ServeOptions) -> None:
    """On a laptop another engine may have the port: it would answer in the place of this one, and seem
    ready."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            raise StartFailure(f"port {options.port}: {error.strerror}", stage="fetch") from error


def read_targets(options: ServeOptions) -> Targets:
    try:
        return Targets.from_json(options.targets_path.read_bytes())
    except (OSError, TargetsError) as error:
        raise StartFailure(f"{options.targets_path}: {error}", stage="fetch") from error


def server_settings(
    options: ServeOptions, *, model: ModelFacts, refused_layout: RefusedLayout | None
) -> ServerSettings:
    pod_ip = os.environ.get("POD_IP")
    return ServerSettings(
        service=options.service,
        model=model,
        tensor_parallel_size=options.tensor_parallel_size,
        data_parallel_size=options.data_parallel_size,
        refused_layout=refused_layout,
        emulated=options.emulation is not None,
        targets_path=options.targets_path,
        admin_socket=options.admin_socket,
        max_request_s=options.max_request_s,
        max_prompt_tokens=options.checked_prompt_tokens,
        routers=options.routers,
        address=f"{pod_ip}:{options.port}" if pod_ip else None,
    )


def quit_early(number: int, _: FrameType | None) -> None:
    """SIGTERM before there is an engine. A first process without a handler would ignore it."""
    raise SystemExit(128 + number)


class _Launch:
    def __init__(
        self,
        options: ServeOptions,
        *,
        clock: StartClock,
        targets: Targets,
        model: Model,
        layout: PodLayout,
    ) -> None:
        self._options = options
        self._layout = layout
        self._changes_layout = False
        self._clock = clock
        self._model = model
        self._failure: StartFailure | Refused | None = None
        self._stopping = False
        self._ended = threading.Event()
        buckets = histogram_buckets(
            targets,
            max_prompt_tokens=options.max_prompt_tokens,
            max_model_tokens=options.max_model_tokens,
        )
        arguments = vllm_args(options, model=model.loaded_from, buckets=buckets)
        self._argv = [sys.executable, "-m", MODULE, *arguments]

    def run(self) -> int:
        options = self._options
        log.info("engine_start", model=options.model_uri, layout=str(options.layout))
        log.info("engine_arguments", argv=" ".join(self._argv[3:]))
        self._clock.spawned()
        engine = EngineProcess(self._argv, env=self._environment(), on_line=self._clock.read)

        def stop(number: int, _: FrameType | None) -> None:
            self._stop(engine, number)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        if options.live_port is not None:
            serve_liveness(
                host=options.host,
                port=options.live_port,
                engine_port=options.port,
                is_serving=lambda: self._clock.stage == "serving" and not self._changes_layout,
            )
        threading.Thread(target=self._bring_up, args=(engine,), name="bring-up", daemon=True).start()
        if options.layout_file is not None:
            threading.Thread(target=self._follow_layout, args=(engine,), name="layout", daemon=True).start()
        code = engine.wait()
        self._ended.set()
        log.info("engine_ended", code=code, stage=self._clock.stage)
        if self._stopping:
            return code
        if self._changes_layout:
            self._layout.restart()
        return self._report(engine, code=code)

    def _follow_layout(self, engine: EngineProcess) -> None:
        self._layout.wait_for_another(
            AdminClient(self._options.admin_socket), is_open=lambda: self._clock.stage == "serving"
        )
        if not self._stopping:
            self._changes_layout = True
            engine.terminate()
            self._kill_later(engine)

    def _bring_up(self, engine: EngineProcess) -> None:
        options = self._options
        server = LoopbackServer(host=options.host, port=options.port, model=options.served_names[0])
        if not server.wait_until_it_answers(alive=lambda: not self._ended.is_set()):
            return
        self._clock.answers()
        try:
            server.warm_up(max_prompt_tokens=options.max_prompt_tokens)
            canary = checked(
                server.log_probabilities(),
                token_s=server.token_s(),
                options=options,
                model=self._model.facts,
            )
            self._clock.warm()
            self._open(canary)
            self._layout.opened()
        except (StartFailure, Refused) as error:
            self._failure = error
            engine.terminate()

    def _open(self, canary: Canary | None) -> None:
        stages = self._clock.stages()
        client = AdminClient(self._options.admin_socket)
        while not self._ended.is_set():
            try:
                client.open(stages, canary=canary)
            except NoAnswer as error:
                log.warning("open_again", error=str(error))
                time.sleep(_ASK_AGAIN_S)
            except NoServer as error:
                # vLLM starts without a plugin that does not load, and says so in its log only.
                raise StartFailure(f"our plugin is not in the server: {error}", stage="warmup") from error
            else:
                log.info("ready", **{f"{stage}_s": round(seconds, 2) for stage, seconds in stages.items()})
                return

    def _stop(self, engine: EngineProcess, number: int) -> None:
        """The kubelet's SIGTERM, or Ctrl-C; the second one does not wait.

        vLLM ends what its engine computes, but a request that it has accepted and not begun gets an empty stream
        (0.32, seen): so it is told only when no request is left.
        """
        log.info("stop", signal=number, stage=self._clock.stage)
        leaves = self._clock.stage == "serving" and not self._stopping
        self._stopping = True
        if leaves:
            threading.Thread(target=self._leave, args=(engine,), name="leave", daemon=True).start()
            return
        engine.terminate()
        if self._clock.stage != "serving":
            self._kill_later(engine)

    @staticmethod
    def _kill_later(engine: EngineProcess) -> None:
        timer = threading.Timer(_ENDING_S, engine.kill)
        timer.daemon = True
        timer.start()

    def _leave(self, engine: EngineProcess) -> None:
        until_drained(self._options.admin_socket, say=lambda text: log.info("leaving", said=text))
        engine.terminate()

    def _report(self, engine: EngineProcess, *, code: int) -> int:
        failure = self._failure or StartFailure(
            f"the engine ended with code {code}: {engine.last_error()}", stage=self._clock.stage
        )
        if self._layout.failed(str(failure)):
            self._layout.restart()
        log.error("engine_failed", stage=self._clock.stage, error=str(failure))
        verdict = report(failure)
        return verdict if isinstance(failure, Refused) else code or verdict

    def _environment(self) -> dict[str, str]:
        options = self._options
        threads: dict[str, str] = {}
        if options.device == "cpu":
            threads = deal_cores(
                machine.cores(),
                ranks=options.layout.gpus,
                limit_cores=machine.cpu_limit_cores(),
            ).to_env()
            log.info("cpu_threads", **threads)
        return {
            **threads,
            **os.environ,
            **vllm_env(model=self._model.loaded_from, eager=self._options.eager),
            **server_settings(options, model=self._model.facts, refused_layout=self._layout.refused).to_env(),
        }
