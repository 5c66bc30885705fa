"""The stat logger of stock vLLM: one beat per engine step, and nothing else.

vLLM calls `record` for each set of outputs that the engine sends, which with statistics on is one per step,
also for a step that only computes a part of a prompt. Metrics stay with vLLM's own logger: a second one
that registers series would unregister the first's.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from paceline_runtime.vllm_plugin.serving import current


class StepHeartbeat(StatLoggerBase):  # type: ignore[misc]
    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._heartbeat = current().heartbeat

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        self._heartbeat.beat()

    def log_engine_initialized(self) -> None:
        pass
