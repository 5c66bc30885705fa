"""One replica under a constant number of clients, each of which sends its next request when the last is answered.

How people measure an engine, so how `paceline timing check` replays what they measured. Pure. vLLM's scheduler works
one step ahead of the GPU, so a request that comes in waits for the step that is under way and for the one that is
already composed; all else is `paceline_core.batch`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from paceline_core.batch import Batch
from paceline_core.timing import FRONT_S, StepTiming

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
    batch = Batch(
        kv_cache_tokens=timing.kv_cache_tokens,
        max_sequences=min(concurrency, max_batched_tokens),
        max_batched_tokens=max_batched_tokens,
    )
    if not all(batch.fits(*one) for one in lengths):
        raise NeverFits("a request is longer than the KV cache of the replica")
    loop = _Loop(batch=batch, timing=timing, lengths=lengths, skip=skip)
    for _ in range(min(concurrency, len(lengths))):
        loop.send(ahead=0)
    while loop.step():
        pass
    return Times(
        ttft_s=FRONT_S + sum(loop.ttft_s.values()) / len(lengths),
        tpot_s=sum(loop.tpot_s.values()) / len(lengths),
    )


@dataclass(slots=True, kw_only=True)
class _Loop:
    batch: Batch
    timing: StepTiming
    lengths: Sequence[tuple[int, int]]
    skip: bool
    now_s: float = 0.0
    steps: int = 0
    sent: int = 0
    coming: deque[tuple[int, int]] = field(default_factory=deque)
    """Requests on their way, with the first step that may take them."""
    sent_s: dict[int, float] = field(default_factory=dict)
    ttft_s: dict[int, float] = field(default_factory=dict)
    tpot_s: dict[int, float] = field(default_factory=dict)

    def send(self, *, ahead: int) -> None:
        if self.sent < len(self.lengths):
            self.sent_s[self.sent] = self.now_s
            self.coming.append((self.sent, self.steps + ahead))
            self.sent += 1

    def step(self) -> bool:
        """One, or as many alike as come before anything happens; false after the last."""
        while self.coming and self.coming[0][1] <= self.steps:
            request, _ = self.coming.popleft()
            prompt, output = self.lengths[request]
            self.batch.add(request, prompt_tokens=prompt, output_tokens=output)
        step = self.batch.schedule()
        if step is None:
            # An idle engine does not work ahead.
            self.steps = self.coming[0][1] if self.coming else self.steps
            return bool(self.coming)
        times = self.batch.repeats(step) if self.skip and not self.coming else 1
        self.now_s += step.duration_s(self.timing, times=times)
        self.steps += times
        result = self.batch.complete(step, times=times)
        for request in result.first_tokens:
            self.ttft_s[request] = self.now_s - self.sent_s[request]
        for request in result.finished:
            decoding_s = self.now_s - self.sent_s[request] - self.ttft_s[request]
            self.tpot_s[request] = decoding_s / max(1, self.lengths[request][1] - 1)
            self.send(ahead=STEPS_AHEAD)
        return True
