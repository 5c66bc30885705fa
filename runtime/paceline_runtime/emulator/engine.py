"""The emulated engine: requests in, tokens out, step after step. It computes nothing and reads no clock.

    idle ──admit──▶ begin_step ──the step's time passes──▶ end_step ──work left──▶ begin_step …
                                                              └──none──▶ idle

`StepLoop` calls it in real time, a test with a clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from paceline_core.batch import Batch, Step
from paceline_runtime.emulator.engine_request import EngineRequest
from paceline_runtime.emulator.metrics import RankMetrics
from paceline_runtime.emulator.pace import Pace


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
        batch: Batch,
        pace: Pace,
        *,
        limits: QueueLimits,
        prefix_caching: bool,
        metrics: RankMetrics,
        on_work: Callable[[Engine], None],
    ) -> None:
        """`on_work` is called when there is something to do."""
        self._batch = batch
        self._pace = pace
        self._limits = limits
        self._prefix_caching = prefix_caching
        self._metrics = metrics
        self._on_work = on_work
        self._step: Step | None = None
        self._numbers = count()
        self._numbered: dict[int, EngineRequest] = {}
        self._number_of: dict[str, int] = {}

    @property
    def running(self) -> int:
        return self._batch.running

    @property
    def waiting(self) -> int:
        return self._batch.waiting

    @property
    def kv_cache_usage(self) -> float:
        return self._batch.kv_cache_usage

    def unfinished(self) -> int:
        return len(self._numbered)

    def prompt_tokens(self, request_id: str) -> int | None:
        number = self._number_of.get(request_id)
        return None if number is None else self._numbered[number].prompt_tokens

    def show(self) -> None:
        """Before the metrics are written."""
        self._metrics.now(running=self.running, waiting=self.waiting, kv_cache_usage=self.kv_cache_usage)

    def admit(self, request: EngineRequest) -> None:
        """Queue a request. Raises QueueFull."""
        limits = self._limits
        if self.unfinished() >= limits.max_unfinished:
            raise QueueFull("max_num_queued_reqs")
        queued_tokens = sum(one.prompt_tokens for one in self._numbered.values() if one.scheduled_s is None)
        if queued_tokens >= limits.max_queued_tokens:
            raise QueueFull("max_num_queued_tokens")
        number = next(self._numbers)
        self._batch.add(
            number,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            cached_tokens=request.cached_tokens,
        )
        self._numbered[number] = request
        self._number_of[request.request_id] = number
        self._on_work(self)

    def abort(self, request: EngineRequest) -> None:
        """Forget a request; nothing happens if it has finished."""
        number = self._number_of.pop(request.request_id, None)
        if number is not None:
            del self._numbered[number]
            self._batch.abort(number)
            self._metrics.aborted()

    def begin_step(self, now_s: float) -> float:
        """The seconds that the step takes. There is work."""
        step = self._batch.schedule()
        # The KV cache holds the longest sequence, so that one at least can always run.
        assert step is not None
        self._step = step
        for prefill in step.prefills:
            request = self._numbered[prefill.request_id]
            if request.scheduled_s is None:
                request.scheduled_s = now_s
                if self._prefix_caching:
                    self._metrics.looked_up(request, cached_tokens=prefill.prior_tokens)
        return self._pace.step_s(step)

    def end_step(self, now_s: float) -> None:
        """The step's time has passed: its tokens are there."""
        step, self._step = self._step, None
        assert step is not None
        result = self._batch.complete(step)
        metrics = self._metrics
        metrics.stepped(step, produced=len(result.tokens))
        for number in result.tokens:
            request = self._numbered[number]
            metrics.produced(request, now_s=now_s)
            if request.first_token_s is None:
                request.first_token_s = now_s
            request.last_token_s = now_s
            request.produced += 1
            request.changed.set()
        for number in result.finished:
            request = self._numbered.pop(number)
            del self._number_of[request.request_id]
            metrics.finished(request, now_s=now_s)
