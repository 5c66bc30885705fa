"""The emulated engine: requests in, tokens out, step after step. It computes nothing and reads no clock.

    idle ──admit──▶ begin_step ──the step's time passes──▶ end_step ──work left──▶ begin_step …
                                                              └──none──▶ idle

`StepLoop` calls it in real time, a test with a clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paceline_runtime.emulator.engine_request import EngineRequest
from paceline_runtime.emulator.metrics import EngineMetrics
from paceline_runtime.emulator.pace import Pace
from paceline_runtime.emulator.scheduler import Scheduler, Step


class QueueFull(Exception):
    """A queue limit is reached. `reason` is the limit's name in vLLM's metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    max_unfinished: int
    """Running and waiting sequences together, as vLLM's max_num_queued_reqs counts."""
    max_queued_tokens: int
    """Prompt tokens of sequences that wait."""


class Engine:
    def __init__(
        self,
        scheduler: Scheduler,
        pace: Pace,
        *,
        limits: QueueLimits,
        prefix_caching: bool,
        metrics: EngineMetrics,
        on_work: Callable[[Engine], None],
    ) -> None:
        """`on_work` is called when there is something to do."""
        self._pace = pace
        self._prefix_caching = prefix_caching
        self._scheduler = scheduler
        self._limits = limits
        self._metrics = metrics
        self._on_work = on_work
        self._step: Step | None = None
        self._by_id: dict[str, EngineRequest] = {}

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def kv_cache_usage(self) -> float:
        return self._scheduler.kv_cache_usage

    def unfinished(self) -> int:
        return len(self._by_id)

    def prompt_tokens(self, request_id: str) -> int | None:
        request = self._by_id.get(request_id)
        return None if request is None else request.prompt_tokens

    def admit(self, request: EngineRequest) -> None:
        """Queue a request. Raises QueueFull."""
        limits = self._limits
        if self.unfinished() >= limits.max_unfinished:
            raise QueueFull("max_num_queued_reqs")
        if sum(one.prompt_tokens for one in self._scheduler.waiting) >= limits.max_queued_tokens:
            raise QueueFull("max_num_queued_tokens")
        self._by_id[request.request_id] = request
        self._scheduler.add(request)
        self._on_work(self)

    def abort(self, request: EngineRequest) -> None:
        """Forget a request; nothing happens if it has finished."""
        if self._by_id.pop(request.request_id, None) is not None:
            self._scheduler.remove(request)
            self._metrics.aborted()

    def begin_step(self, now_s: float) -> float:
        """The seconds that the step takes. There is work."""
        step = self._scheduler.schedule()
        self._step = step
        for sequence in step.joined:
            assert isinstance(sequence, EngineRequest)
            if sequence.scheduled_s is None:
                sequence.scheduled_s = now_s
                if self._prefix_caching:
                    self._metrics.looked_up(sequence)
        return self._pace.step_s(step)

    def end_step(self, now_s: float) -> None:
        """The step's time has passed: its tokens are there."""
        step, self._step = self._step, None
        assert step is not None
        got = self._scheduler.complete(step)
        metrics = self._metrics
        metrics.stepped(step, produced=len(got))
        for request in got:
            assert isinstance(request, EngineRequest)
            metrics.produced(request, now_s=now_s)
            if request.first_token_s is None:
                request.first_token_s = now_s
            request.last_token_s = now_s
            if request.finished:
                del self._by_id[request.request_id]
                metrics.finished(request, now_s=now_s)
            request.changed.set()
