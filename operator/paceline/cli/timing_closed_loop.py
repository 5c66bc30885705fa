"""One replica under a constant number of clients, each of which sends its next request when the last is answered.

How people measure an engine, so how `paceline timing check` replays what they measured: `paceline_core.batch`, and what
a request spends outside of its steps. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from paceline_core.batch import Batch
from paceline_core.timing import FRONT_S, StepTiming


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
        loop.send()
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
    sent: int = 0
    sent_s: dict[int, float] = field(default_factory=dict)
    ttft_s: dict[int, float] = field(default_factory=dict)
    tpot_s: dict[int, float] = field(default_factory=dict)

    def send(self) -> None:
        if self.sent < len(self.lengths):
            prompt, output = self.lengths[self.sent]
            self.batch.add(self.sent, prompt_tokens=prompt, output_tokens=output)
            self.sent_s[self.sent] = self.now_s
            self.sent += 1

    def step(self) -> bool:
        """One, or as many alike as come before anything happens; false after the last."""
        step = self.batch.schedule()
        if step is None:
            return False
        times = self.batch.repeats(step) if self.skip else 1
        self.now_s += step.duration_s(self.timing, times=times)
        result = self.batch.complete(step, times=times)
        for request in result.first_tokens:
            self.ttft_s[request] = self.now_s - self.sent_s[request]
        for request in result.finished:
            decoding_s = self.now_s - self.sent_s[request] - self.ttft_s[request]
            self.tpot_s[request] = decoding_s / max(1, self.lengths[request][1] - 1)
            self.send()
        return True
