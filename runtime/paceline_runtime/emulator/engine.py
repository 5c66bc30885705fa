"""Continuous batching at a constant step time.

Each step every running sequence gets one token; waiting sequences join at the next step, up to
`max_sequences`, in order of arrival. A prompt costs no time of its own: the first token comes at the end of
the step that admits it. The step loop runs only while there is work, so an idle engine uses no CPU.

    step        |--------- step_s ---------|--------- step_s ---------|
    A arrives ^ | A admitted     A: token 1| A: token 2  B: token 1   |
                |          B arrives ^     | B admitted               |
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


class QueueFull(Exception):
    """A queue limit is reached. `reason` is the limit's name in vLLM's metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    step_s: float
    max_sequences: int
    max_unfinished: int
    """Running and waiting sequences together, as vLLM's max_num_queued_reqs counts."""
    max_queued_tokens: int
    """Prompt tokens of sequences that wait."""


@dataclass(eq=False, slots=True, kw_only=True)
class Sequence:
    request_id: str
    prompt_tokens: int
    output_tokens: int
    """How many it will get."""
    arrived_s: float
    produced: int = 0
    first_token_s: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def finished(self) -> bool:
        return self.produced >= self.output_tokens


class Engine:
    def __init__(self, limits: Limits, *, on_step: Callable[[int], None]) -> None:
        """`on_step` is called with the number of tokens at the end of each step."""
        self._limits = limits
        self._on_step = on_step
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._loop: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def held_tokens(self) -> int:
        """Tokens that a real engine would hold in its KV cache now."""
        return sum(one.prompt_tokens + one.produced for one in self._running)

    def unfinished(self) -> int:
        return len(self._running) + len(self._waiting)

    def prompt_tokens(self, request_id: str) -> int | None:
        everyone = (*self._running, *self._waiting)
        return next((one.prompt_tokens for one in everyone if one.request_id == request_id), None)

    def admit(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises QueueFull."""
        limits = self._limits
        if self.unfinished() >= limits.max_unfinished:
            raise QueueFull("max_num_queued_reqs")
        if sum(one.prompt_tokens for one in self._waiting) >= limits.max_queued_tokens:
            raise QueueFull("max_num_queued_tokens")
        self._waiting.append(sequence)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.get_running_loop().create_task(self._step_while_busy())

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, finished or not."""
        if sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)

    async def tokens(self, sequence: Sequence) -> AsyncIterator[range]:
        """Places of the tokens as they come; several at once for a reader that is behind."""
        sent = 0
        while sent < sequence.output_tokens:
            await sequence.changed.wait()
            sequence.changed.clear()
            produced = sequence.produced
            if produced > sent:
                yield range(sent, produced)
                sent = produced

    async def _step_while_busy(self) -> None:
        loop = asyncio.get_running_loop()
        while self._running or self._waiting:
            while self._waiting and len(self._running) < self._limits.max_sequences:
                self._running.append(self._waiting.popleft())
            await asyncio.sleep(self._limits.step_s)
            self._on_step(self._produce(loop.time()))

    def _produce(self, now_s: float) -> int:
        produced = len(self._running)
        for sequence in self._running:
            sequence.produced += 1
            if sequence.first_token_s is None:
                sequence.first_token_s = now_s
            sequence.changed.set()
        self._running = [sequence for sequence in self._running if not sequence.finished]
        return produced
