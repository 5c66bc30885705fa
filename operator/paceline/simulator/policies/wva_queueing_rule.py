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

STEPS = 60


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


def mean_latency(
    model: IterationModel, rate: float, *, prompt_tokens: float, output_tokens: float, max_batch: int
) -> Means:
    """Of one replica at this arrival rate, by the stationary distribution of the queue."""
    n = np.arange(1, max_batch + 1, dtype=float)
    lengths = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
    prefill = model.prefill_s(0, **lengths) + (n * _slope(model, **lengths))
    decode = model.decode_s(0, **lengths) + (n * _slope(model, **lengths))
    served = n / (prefill + output_tokens * decode)
    places = max_batch * (1 + QUEUE_PER_BATCH)
    rates = np.concatenate([served, np.full(places - max_batch, served[-1])])
    weights = np.concatenate([[0.0], np.cumsum(math.log(rate) - np.log(rates))])
    share = np.exp(weights - weights.max())
    share /= share.sum()
    in_system = np.arange(places + 1, dtype=float)
    entered = rate * (1 - share[-1])
    waiting = float((share * np.maximum(in_system - max_batch, 0)).sum()) / entered
    in_batch = float((share * np.minimum(in_system, max_batch)).sum())
    batch = max(in_batch, 1.0)
    return Means(ttft_s=waiting + model.prefill_s(batch, **lengths), itl_s=model.decode_s(batch, **lengths))


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
    low, high = 1e-6, max_batch / (output_tokens * model.alpha_s)

    def good(rate: float) -> bool:
        means = mean_latency(
            model, rate, prompt_tokens=prompt_tokens, output_tokens=output_tokens, max_batch=max_batch
        )
        return means.ttft_s <= ttft_target_s and means.itl_s <= itl_target_s

    if not good(low):
        return 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low
