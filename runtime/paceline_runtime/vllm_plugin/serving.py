"""The state that readiness, drain, counts and metrics of one server process share.

vLLM makes the endpoint plugin, the stat logger and the middleware each by itself, so under vLLM they meet
in the one `current()` of the process. Everything else, the emulated engine and the tests, makes its own and
passes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cache

from paceline_core.canary import Canary
from paceline_core.latency import Targets
from paceline_runtime.vllm_plugin.engine_view import EngineView, NoEngine
from paceline_runtime.vllm_plugin.heartbeat import Heartbeat
from paceline_runtime.vllm_plugin.ledger import Ledger
from paceline_runtime.vllm_plugin.lifecycle import Lifecycle
from paceline_runtime.vllm_plugin.prompt_limit import PromptLimit
from paceline_runtime.vllm_plugin.settings import ServerSettings


class Serving:
    def __init__(
        self, settings: ServerSettings, *, targets: Targets, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.refused_layout = settings.refused_layout
        self.engine: EngineView = NoEngine()
        self.lifecycle = Lifecycle(clock=clock)
        self.heartbeat = Heartbeat(clock=clock, unfinished=lambda: self.engine.unfinished())
        self.ledger = Ledger(targets)
        self.prompt_limit = (
            None if settings.max_prompt_tokens is None else PromptLimit(settings.max_prompt_tokens)
        )
        self.stages: Mapping[str, float] = {}
        """Seconds of each stage of the start, told by the launcher once the engine is warm."""
        self.canary: Canary | None = None
        """Told with them. None: not measured."""

    def open(self, stages: Mapping[str, float], *, canary: Canary | None) -> None:
        self.stages = dict(stages)
        self.canary = canary
        self.lifecycle.open()


@cache
def current() -> Serving:
    """The state of this process, from the settings in its environment."""
    settings = ServerSettings.from_env(os.environ)
    return Serving(settings, targets=Targets.from_json(settings.targets_path.read_bytes()))
