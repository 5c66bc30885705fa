"""One replica under a constant number of clients, each of which sends its next request when the last is answered.

How people measure an engine, so how `paceline timing check` replays what they measured. Scheduling is vLLM V1's: what
runs goes first (a decode is a chunk of one token), then what waits, within a budget of tokens and of KV blocks; where
blocks end, the youngest is preempted and computed again. The scheduler works one step ahead of the GPU, so a request
that comes in waits for the step that is under way and for the one that is already composed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from paceline_core.timing import FRONT_S, StepTiming

BLOCK_TOKENS: Final = 16
STEPS_AHEAD: Final = 1


class NeverFits(ValueError):
    """A request is longer than the KV cache of the whole replica."""


def draw_lengths(
    *, prompt_tokens: int, output_tokens: int, requests: int, seed: int
) -> list[tuple[int, int]]:
    """Prompt and output of each request, drawn evenly from [0.8, 1] × nominal."""
    rng = random.Random(seed)

    def near(nominal: int) -> int:
        return rng.randint(max(1, int(0.8 * nominal)), nominal)

    return [(near(prompt_tokens), near(output_tokens)) for _ in range(requests)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Means over all requests, as the measured rows have them."""

    ttft_s: float
    tpot_s: float


@dataclass(slots=True, kw_only=True)
class _Request:
    prompt: int
    output: int
    arrived_s: float
    first_step: int
    """The first that may take it."""
    computed: int = 0
    generated: int = 0
    first_token_s: float = 0.0
    done_s: float = 0.0

    @property
    def owed(self) -> int:
        """Tokens to compute before the next comes out."""
        return self.prompt + self.generated - self.computed

    @property
    def decodes(self) -> bool:
        return self.generated > 0 and self.owed == 1

    @property
    def blocks(self) -> int:
        return _blocks(self.computed)


def closed_loop(
    timing: StepTiming,
    lengths: Sequence[tuple[int, int]],
    *,
    concurrency: int,
    max_batched_tokens: int,
    skip: bool = True,
) -> Times:
    """All requests, the last of them among fewer and fewer. NeverFits where one is longer than the KV cache.

    `skip` false computes every step by itself: slower, and to the same result.
    """
    engine = _Engine(timing=timing, max_batched_tokens=max_batched_tokens, sequences=concurrency)
    to_come = deque(lengths)
    done: list[_Request] = []
    for _ in range(min(concurrency, len(to_come))):
        engine.take(*to_come.popleft(), ahead=0)
    while engine.waiting or engine.running:
        for request in engine.step(skip=skip):
            done.append(request)
            if to_come:
                engine.take(*to_come.popleft(), ahead=STEPS_AHEAD)
    return Times(
        ttft_s=FRONT_S + sum(r.first_token_s - r.arrived_s for r in done) / len(done),
        tpot_s=sum((r.done_s - r.first_token_s) / max(1, r.output - 1) for r in done) / len(done),
    )


@dataclass(slots=True, kw_only=True)
class _Engine:
    timing: StepTiming
    max_batched_tokens: int
    sequences: int
    now_s: float = 0.0
    steps: int = 0
    blocks_used: int = 0
    preempted: bool = False
    """Whether the last step had to: what waits is then looked at again only in the next."""
    waiting: deque[_Request] = field(default_factory=deque)
    running: list[_Request] = field(default_factory=list)

    @property
    def blocks_in_all(self) -> int:
        return self.timing.kv_cache_tokens // BLOCK_TOKENS

    def take(self, prompt: int, output: int, *, ahead: int) -> None:
        first_step = self.steps + ahead
        self.waiting.append(
            _Request(prompt=prompt, output=output, arrived_s=self.now_s, first_step=first_step)
        )

    def step(self, *, skip: bool) -> list[_Request]:
        """One step, or as many alike as come before anything happens. Returns the requests that ended."""
        chunks = self._schedule()
        if not chunks:
            self._refuse_what_never_fits()
            # An idle engine does not work ahead.
            self.steps = self.waiting[0].first_step
            return []
        count = self._alike(chunks) if skip else 1
        decoding = [request for request, _ in chunks if request.decodes]
        self.now_s += count * self.timing.step_s(
            prefills=[(chunk, request.computed) for request, chunk in chunks if not request.decodes],
            decodes=len(decoding),
            decode_context_tokens=sum(r.computed for r in decoding) + len(decoding) * (count - 1) / 2,
        )
        self.steps += count
        return self._advance(chunks, count)

    def _schedule(self) -> list[tuple[_Request, int]]:
        budget, before = self.max_batched_tokens, len(self.running)
        chunks: list[tuple[_Request, int]] = []
        while len(chunks) < len(self.running):
            request = self.running[len(chunks)]
            chunk = min(request.owed, budget)
            if not self._make_room(request, chunk):
                break
            budget -= chunk
            chunks.append((request, chunk))
        self.preempted = len(self.running) < before
        while not self.preempted and budget and self._may_start(budget):
            request = self.waiting.popleft()
            chunk = min(request.owed, budget)
            self.blocks_used += _blocks(chunk)
            budget -= chunk
            self.running.append(request)
            chunks.append((request, chunk))
        return [(request, chunk) for request, chunk in chunks if chunk]

    def _make_room(self, request: _Request, chunk: int) -> bool:
        """Takes the blocks for a chunk, from the youngest if need be; false where that was the request itself."""
        more = _blocks(request.computed + chunk) - request.blocks
        while self.blocks_used + more > self.blocks_in_all:
            youngest = self.running.pop()
            self.blocks_used -= youngest.blocks
            youngest.computed = 0
            self.waiting.appendleft(youngest)
            if youngest is request:
                return False
        self.blocks_used += more
        return True

    def _may_start(self, budget: int) -> bool:
        if not self.waiting or len(self.running) >= self.sequences:
            return False
        head = self.waiting[0]
        fits = self.blocks_used + _blocks(min(head.owed, budget)) <= self.blocks_in_all
        return fits and head.first_step <= self.steps

    def _refuse_what_never_fits(self) -> None:
        if self.waiting and self.waiting[0].first_step <= self.steps:
            raise NeverFits("a request is longer than the KV cache of the replica")

    def _alike(self, chunks: list[tuple[_Request, int]]) -> int:
        """Steps from here on in which the same sequences decode: until one ends, or blocks run short, or one comes."""
        if self.preempted or not all(request.decodes for request, _ in chunks):
            return 1
        if self.waiting and self.waiting[0].first_step > self.steps:
            return 1
        until_end = min(request.output - request.generated for request, _ in chunks)
        free = self.blocks_in_all - self.blocks_used
        return max(1, min(until_end, BLOCK_TOKENS * (free // len(chunks))))

    def _advance(self, chunks: Iterable[tuple[_Request, int]], count: int) -> list[_Request]:
        ended = []
        for request, chunk in chunks:
            already = _blocks(request.computed + chunk)
            request.computed += chunk + count - 1
            self.blocks_used += request.blocks - already
            if request.owed == 0 or count > 1:
                if not request.generated:
                    request.first_token_s = self.now_s
                request.generated += count
            if request.generated >= request.output:
                request.done_s = self.now_s
                self.blocks_used -= request.blocks
                self.running.remove(request)
                ended.append(request)
        return ended


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
