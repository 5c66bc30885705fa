"""The queueing model of llm-d's Workload Variant Autoscaler: a state-dependent M/M/1-K queue, means only.

    iteration  T(n) = α + n·(β·(I+O)/(O+1) + γ·(I+O/2))
    prefill    T + (β+γ)·I              decode   T + β + γ·(I+O/2)
    rate with n in the batch            n / (prefill + O·decode)

The largest arrival rate whose mean TTFT and mean ITL meet the targets is what one replica carries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from paceline_core.timing import StepTiming

QUEUE_PER_BATCH = 10
"""K: the batch and so many times the batch waiting."""

PRECISION = 1e-6
"""Of the rate that one replica carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationModel:
    """α, β, γ: what the autoscaler's tuner has learned about one engine."""

    alpha_s: float
    beta_s: float
    gamma_s: float

    @classmethod
    def of(
        cls, timing: StepTiming, *, prompt_tokens: float, output_tokens: float, max_batch: int
    ) -> IterationModel:
        """The best that a tuner can learn: least squares on the engine's true iteration times for this mix."""
        batches = np.unique(np.geomspace(1, max(max_batch, 2), 24).astype(int)).astype(float)
        gamma = timing.scale * timing.decode_attention_s
        each = (prompt_tokens + output_tokens) / (output_tokens + 1)
        chunk_work = prompt_tokens * prompt_tokens / 2 / (output_tokens + 1)
        true = [
            timing.scale * (timing.tokens_s(n * each) + timing.prefill_attention_s * n * chunk_work)
            + timing.overhead_s
            for n in batches
        ]
        slope, base = np.polyfit(batches * each, np.array(true), 1, w=1 / np.array(true))
        return cls(alpha_s=max(float(base), 1e-6), beta_s=max(float(slope), 1e-12), gamma_s=gamma)

    def iteration_s(self, n: float, *, prompt_tokens: float, output_tokens: float) -> float:
        tokens = (prompt_tokens + output_tokens) / (output_tokens + 1)
        context = prompt_tokens + output_tokens / 2
        return self.alpha_s + n * (self.beta_s * tokens + self.gamma_s * context)

    def prefill_s(self, n: float, *, prompt_tokens: float, output_tokens: float) -> float:
        whole = self.iteration_s(n, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        return whole + (self.beta_s + self.gamma_s) * prompt_tokens

    def decode_s(self, n: float, *, prompt_tokens: float, output_tokens: float) -> float:
        whole = self.iteration_s(n, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        return whole + self.beta_s + self.gamma_s * (prompt_tokens + output_tokens / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    ttft_s: float
    itl_s: float


class Queue:
    """The stationary distribution of one replica's queue: what does not depend on the arrival rate is kept."""

    def __init__(
        self, model: IterationModel, *, prompt_tokens: float, output_tokens: float, max_batch: int
    ) -> None:
        self._lengths = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
        self._model = model
        n = np.arange(1, max_batch + 1, dtype=float)
        slope = n * _slope(model, **self._lengths)
        prefill = model.prefill_s(0, **self._lengths) + slope
        decode = model.decode_s(0, **self._lengths) + slope
        served = n / (prefill + output_tokens * decode)
        places = max_batch * (1 + QUEUE_PER_BATCH)
        rates = np.concatenate([served, np.full(places - max_batch, served[-1])])
        self._in_system = np.arange(places + 1, dtype=float)
        self._served = np.concatenate([[0.0], np.cumsum(np.log(rates))])
        self._waiting = np.maximum(self._in_system - max_batch, 0)
        self._in_batch = np.minimum(self._in_system, max_batch)

    def means(self, rate: float) -> Means:
        """At this arrival rate."""
        weights = self._in_system * math.log(rate) - self._served
        share = np.exp(weights - weights.max())
        share /= share.sum()
        entered = rate * (1 - float(share[-1]))
        waiting = float(share @ self._waiting) / entered
        batch = max(float(share @ self._in_batch), 1.0)
        return Means(
            ttft_s=waiting + self._model.prefill_s(batch, **self._lengths),
            itl_s=self._model.decode_s(batch, **self._lengths),
        )


def _slope(model: IterationModel, *, prompt_tokens: float, output_tokens: float) -> float:
    one = model.iteration_s(1, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    return one - model.alpha_s


def carried_rate(
    model: IterationModel,
    *,
    prompt_tokens: float,
    output_tokens: float,
    max_batch: int,
    ttft_target_s: float,
    itl_target_s: float,
) -> float:
    """λ*: requests per second of one replica; 0 where even one lone request misses a target."""
    queue = Queue(model, prompt_tokens=prompt_tokens, output_tokens=output_tokens, max_batch=max_batch)
    low, high = 1e-6, max_batch / (output_tokens * model.alpha_s)

    def good(rate: float) -> bool:
        means = queue.means(rate)
        return means.ttft_s <= ttft_target_s and means.itl_s <= itl_target_s

    if not good(low):
        return 0.0
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low
