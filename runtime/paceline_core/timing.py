"""How long one engine step takes: the timing model that planner, simulator and emulator share. Pure.

One step of a replica computes the prefill chunks and the decoding sequences of that step together:

    T = κ·[ f(N) + a_p·Σ_prefill chunk·(prior + chunk/2) + a_d·Σ_decode context ] + δ

with N = prefill tokens + decoding sequences. `f` holds what each token costs whatever its context (weights
read once a step, matrix products, all-reduce); the other two terms are attention. κ and δ correct a table for
one service: κ scales the GPU's time, δ is the host's time between steps.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

HOST_OVERHEAD_S: Final = 0.0015
"""δ where a table does not bring its own: shipped tables do, estimates do not."""

FRONT_S: Final = 0.012
"""What a request spends outside of the engine's steps before its first token: HTTP, tokenizer, the way to the engine
and back. Fitted on the same closed-loop rows as the shipped tables, with a scheduler that works one step ahead."""

TimingSource = Literal["Operations", "Roofline"]
"""Operations: summed from measured times of single operations. Roofline: estimated from datasheets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTiming:
    """The step time of one (model, format, GPU, TP)."""

    knot_tokens: tuple[int, ...]
    """Where `f` is known, ascending."""
    knot_s: tuple[float, ...]
    """`f` there. Between knots it is linear; beyond the last it goes on at the last slope."""
    prefill_attention_s: float
    """a_p: seconds for one prompt token that attends to one earlier token."""
    decode_attention_s: float
    """a_d: seconds for one token of context of one decoding sequence."""
    kv_cache_tokens: int
    """Tokens that the KV cache of one replica holds."""
    scale: float = 1.0
    """κ"""
    overhead_s: float = HOST_OVERHEAD_S
    """δ"""

    def __post_init__(self) -> None:
        if len(self.knot_tokens) < 2 or len(self.knot_tokens) != len(self.knot_s):
            raise ValueError("knot_tokens and knot_s: write at least two knots, as many tokens as times")
        if any(b <= a for a, b in zip(self.knot_tokens, self.knot_tokens[1:], strict=False)):
            raise ValueError("knot_tokens: write them ascending")

    def tokens_s(self, tokens: float) -> float:
        """`f`: the part of a step that depends on its number of tokens alone, κ not applied."""
        last = len(self.knot_tokens) - 1
        right = min(max(bisect.bisect_left(self.knot_tokens, tokens), 1), last)
        x0, x1 = self.knot_tokens[right - 1], self.knot_tokens[right]
        y0, y1 = self.knot_s[right - 1], self.knot_s[right]
        return y0 + (y1 - y0) * (max(tokens, self.knot_tokens[0]) - x0) / (x1 - x0)

    def step_s(
        self, *, prefills: Iterable[tuple[int, int]] = (), decodes: int = 0, decode_context_tokens: float = 0
    ) -> float:
        """A whole step. `prefills` are (chunk tokens, tokens already in the cache before the chunk)."""
        tokens, work = decodes, 0.0
        for chunk, prior in prefills:
            tokens += chunk
            work += chunk * (prior + chunk / 2)
        gpu_s = (
            self.tokens_s(tokens)
            + self.prefill_attention_s * work
            + self.decode_attention_s * decode_context_tokens
        )
        return self.scale * gpu_s + self.overhead_s

    def corrected(self, *, scale: float, overhead_s: float | None = None) -> StepTiming:
        """The same table with κ multiplied by `scale`, and another δ if one is given."""
        return replace(
            self,
            scale=self.scale * scale,
            overhead_s=self.overhead_s if overhead_s is None else overhead_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingTable:
    """All tensor-parallel sizes of one (model, format, GPU)."""

    model: str
    """`llama-3.1-70b`"""
    format: str
    """`bf16`, `fp8` or `mxfp4`"""
    gpu: str
    """`h200`"""
    source: TimingSource
    provenance: str
    """Where the figures come from, with version and licence, as a person reads it."""
    by_tensor_parallel_size: Mapping[int, StepTiming]
