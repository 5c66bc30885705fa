"""What a shape would give: TTFT, TPOT and joint attainment of n replicas of one tensor-parallel size.

Analytic, so that 64 candidates cost a millisecond; docs/planner.md has the formulas with their reasons and the
accuracy against the simulator. In short, for one replica that gets λ requests/s:

* Decode batch. A request stays for S steps of T_d(B) seconds, stretched by the prefill work that is mixed
  into the steps: B = λ·S·T_d(B) / (1 − λ·E[Δ(B)]). Turned around it gives λ for each B in closed form, so one
  table per (TP, mix) answers every rate.
* B moves around its mean. Its variance is Poisson's, times 1/(1 − ε) for the feedback of B on its own speed (ε:
  elasticity of a token's time in B), less what balancing over n replicas takes away. Integrated over 7 nodes,
  and a request of o tokens sees the average over its life.
* TPOT is the step at that B plus the prefills that fall into the request's life (compound Poisson).
* TTFT is the rest of the step under way, all that arrived during it, and the request's own chunks.
* Beyond the KV cache or `max_sequences` requests queue for admission.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.decision import Prediction
from paceline.planner.distribution import gamma_cdf, gamma_quantile, normal_cdf
from paceline.planner.mix import Mix
from paceline.planner.observation import Goal
from paceline_core.timing import StepTiming

Floats = npt.NDArray[np.float64]

_BATCHES: Final = 48
_LEAST_BATCH: Final = 0.02
_NODES: Final = np.array([-3.750440, -2.366760, -1.154405, 0.0, 1.154405, 2.366760, 3.750440])
_WEIGHTS: Final = np.array([0.000548, 0.030757, 0.240123, 0.457143, 0.240123, 0.030757, 0.000548])
"""Gauss and Hermite's seven points of a standard normal variable."""
_UNBALANCED: Final = 0.2
"""Share of a replica's own batch variance that power-of-two routing on in-flight counts leaves."""
_BURSTY: Final = 0.3
"""Share of a replica's Poisson variance of arrivals that routing on in-flight counts leaves."""
_ELASTICITY_MOST: Final = 0.95
_LOAD_MOST: Final = 0.98
_PERCENTILES: Final = (0.0, 1.6449, 2.3263)
"""Normal scores of p50, p95 and p99."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Arrays over the shapes asked for, one entry each."""

    attainment: Floats
    utilization: Floats
    batch: Floats
    """Mean decode batch of one replica."""
    ttft_mean_s: Floats
    ttft_variance: Floats
    tpot_mean_s: Floats
    tpot_variance: Floats

    def prediction(self, index: int) -> Prediction:
        ttft = self._quantiles(self.ttft_mean_s[index], self.ttft_variance[index])
        tpot = self._quantiles(self.tpot_mean_s[index], self.tpot_variance[index])
        return Prediction(
            ttft_p50_s=ttft[0],
            ttft_p95_s=ttft[1],
            ttft_p99_s=ttft[2],
            tpot_p50_s=tpot[0],
            tpot_p95_s=tpot[1],
            tpot_p99_s=tpot[2],
            attainment=float(self.attainment[index]),
            utilization=float(self.utilization[index]),
        )

    @staticmethod
    def _quantiles(mean: float, variance: float) -> tuple[float, float, float]:
        a, b, c = (
            float(gamma_quantile(z, mean=np.asarray(mean), variance=np.asarray(variance)))
            for z in _PERCENTILES
        )
        return a, b, c


class ReplicaModel:
    """One (step timing, mix, engine limits): tables over the decode batch, and answers at any rate."""

    def __init__(self, timing: StepTiming, *, mix: Mix, goal: Goal) -> None:
        self._timing = timing
        self._mix = mix
        self._goal = goal
        self._context = mix.context_tokens
        self._steps = max(mix.decode_steps, 1e-3)
        self.most_batch = max(min(goal.max_sequences, timing.kv_cache_tokens / max(self._context, 1.0)), 1.0)
        self._batch = np.geomspace(_LEAST_BATCH, self.most_batch, _BATCHES)
        busy = self._batch / -np.expm1(-self._batch)
        """Mean batch of the steps that have one: an idle engine takes no step."""
        self._decode_s = self._step_s(busy)
        fresh = mix.prompt.tokens * (1 - mix.cached_share)
        prior = mix.prompt.tokens * mix.cached_share
        budget = max(goal.max_batched_tokens - 1, 1)
        full = np.floor(fresh / budget)
        rest = fresh - full * budget
        self._chunks = full + (rest > 0)
        attention_s = timing.prefill_attention_s * fresh * (prior + fresh / 2)
        base = self._tokens_s(busy)[:, None]
        prefill = (
            full * (self._tokens_s(busy + budget)[:, None] - base)
            + (self._tokens_s(busy[:, None] + rest) - base)
            + attention_s
        )
        self._prefill_s = timing.scale * prefill
        """Δ: what the prefill of each prompt point adds to the steps it is mixed into. Batch × prompt."""
        share = mix.prompt.share
        self._prefill_mean = self._prefill_s @ share
        self._prefill_square = self._prefill_s**2 @ share
        per_request = self._steps * self._decode_s / self._batch + self._prefill_mean
        self._rate = np.maximum.accumulate(1 / per_request) + np.arange(_BATCHES) * 1e-12
        self.most_rate = float(self._rate[-1])
        token_s = self._batch / (self._rate * self._steps)
        self._elasticity = np.clip(np.gradient(np.log(token_s), np.log(self._batch)), 0.0, _ELASTICITY_MOST)
        self._classes = self._by_class()
        many = mix.output.tokens > 1.5
        self._output_steps = mix.output.tokens[many] - 1 if many.any() else np.array([1.0])
        self._output_share = mix.output.share[many] if many.any() else np.array([0.0])

    def floor(self) -> tuple[float, float, float]:
        """(mean TTFT, mean TPOT, attainment) of one lone request: what no number of replicas improves."""
        outlook = self.outlook(np.array([1e-9]), replicas=np.array([1.0]))
        return float(outlook.ttft_mean_s[0]), float(outlook.tpot_mean_s[0]), float(outlook.attainment[0])

    def outlook(self, rate: Floats, *, replicas: Floats) -> Outlook:
        """`rate` is requests/s of one replica, `replicas` how many share the traffic; arrays of one shape."""
        return self._at(np.interp(rate, self._rate, self._batch), rate=rate, replicas=replicas)

    def rate_at(self, batch: Floats) -> Floats:
        return np.asarray(np.interp(batch, self._batch, self._rate))

    def _at(self, batch: Floats, *, rate: Floats, replicas: Floats) -> Outlook:
        elasticity = np.interp(batch, self._batch, self._elasticity)
        pooled = 1 / replicas + (1 - 1 / replicas) * _UNBALANCED
        variance = np.maximum(batch, 1e-9) / (1 - elasticity) * pooled
        around = _spread(batch[:, None], variance[:, None])
        first = self._first_token(around, rate=rate[:, None], replicas=replicas[:, None])
        later = self._later_tokens(batch, variance, elasticity, rate=rate)
        good = np.zeros(batch.shape)
        for one in self._classes:
            in_time = gamma_cdf(
                one.ttft_target_s - first.own_s[..., one.prompts],
                mean=first.wait_mean_s[..., None],
                variance=first.wait_variance[..., None],
            )
            steady = later.good(one.tpot_target_s)
            good += ((in_time @ one.share) * steady) @ _WEIGHTS
        utilization = rate / self.most_rate
        good *= self._admitted(batch, variance, rate=rate)
        ttft = first.own_s + first.wait_mean_s[..., None]
        ttft_mean = (ttft @ self._mix.prompt.share) @ _WEIGHTS
        ttft_square = ((ttft**2 + first.wait_variance[..., None]) @ self._mix.prompt.share) @ _WEIGHTS
        return Outlook(
            attainment=np.where(utilization >= 1, 0.0, np.clip(good, 0.0, 1.0)),
            utilization=utilization,
            batch=batch,
            ttft_mean_s=ttft_mean,
            ttft_variance=ttft_square - ttft_mean**2,
            tpot_mean_s=later.mean_s,
            tpot_variance=later.variance,
        )

    def _first_token(self, batch: Floats, *, rate: Floats, replicas: Floats) -> _FirstToken:
        """Steps are a gated queue: what arrives during one is computed in the next.

        A step's length C is T_d plus the prefills that arrived in the step before: E[C] = T_d/(1−ρ),
        Var[C] = λ·E[C]·E[Δ²]/(1−ρ²). A request meets a step by its length (C*), waits for the rest of it and is
        computed together with the others that arrive in it.
        """
        decode_s = np.interp(batch, self._batch, self._decode_s)
        work_mean = np.interp(batch, self._batch, self._prefill_mean)
        work_square = np.interp(batch, self._batch, self._prefill_square)
        load = np.minimum(rate * work_mean, _LOAD_MOST)
        even = 1 / replicas + (1 - 1 / replicas) * _BURSTY
        cycle = decode_s / (1 - load)
        cycle_variance = rate * cycle * work_square * even / (1 - load**2)
        met = cycle + cycle_variance / cycle
        met_variance = cycle_variance * (1 + cycle_variance / cycle**2)
        busy = -np.expm1(-batch) * (1 - load) + load
        """Share of arrivals that find a step under way."""
        wait_mean = busy * met * (0.5 + load)
        wait_square = busy * (
            (met_variance + met**2) * ((0.5 + load) ** 2 + 1 / 12) + rate * met * work_square * even
        )
        left, part = self._grid_place(batch)
        low, high = self._prefill_s[left], self._prefill_s[left + 1]
        own = low + (high - low) * part[..., None] + self._chunks * decode_s[..., None]
        return _FirstToken(own_s=own, wait_mean_s=wait_mean, wait_variance=wait_square - wait_mean**2)

    def _later_tokens(
        self, batch: Floats, variance: Floats, elasticity: Floats, *, rate: Floats
    ) -> _LaterTokens:
        """A request of o tokens sees the mean batch of its o − 1 steps, and the prefills that fall into them."""
        steps = self._output_steps
        life = steps * (1 - elasticity[:, None]) / self._steps
        """The request's steps over those in which the batch forgets what it was."""
        seen = variance[:, None] * 2 * (life + np.expm1(-life)) / np.maximum(life, 1e-6) ** 2
        around = _spread(batch[:, None, None], np.minimum(seen, variance[:, None])[..., None])
        decode_s = np.interp(around, self._batch, self._decode_s)
        work_mean = np.interp(around, self._batch, self._prefill_mean)
        work_square = np.interp(around, self._batch, self._prefill_square)
        load = np.minimum(rate[:, None, None] * work_mean, _LOAD_MOST)
        token_s = decode_s / (1 - load)
        met = rate[:, None, None] * token_s * steps[:, None]
        """Prefills that fall into the request's life, in the mean."""
        return _LaterTokens(
            decode_s=decode_s,
            extra_s=token_s - decode_s,
            extra_variance=rate[:, None, None] * token_s * work_square / steps[:, None],
            untouched=np.exp(-met),
            share=self._output_share,
        )

    def _admitted(self, batch: Floats, variance: Floats, *, rate: Floats) -> Floats:
        """Share of requests that need not queue for the KV cache or a place in the batch beyond their target.

        The batch is full with the normal tail's probability; then a place frees up every life/most_batch
        seconds, and the queue's tail falls as in a queue with that many servers.
        """
        full = normal_cdf(-(self.most_batch - batch) / np.sqrt(variance))
        life_s = batch / np.maximum(rate, 1e-12)
        least_target = min(float(one.ttft_target_s.min()) for one in self._classes)
        drain = np.exp(-least_target * np.maximum(self.most_batch - batch, 0.0) / np.maximum(life_s, 1e-9))
        return 1 - full * drain

    def _grid_place(self, batch: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
        step = np.log(self._batch[1] / self._batch[0])
        place = np.clip(np.log(np.maximum(batch, _LEAST_BATCH) / _LEAST_BATCH) / step, 0, _BATCHES - 1.000001)
        left = place.astype(np.intp)
        return left, place - left

    def _by_class(self) -> tuple[_Class, ...]:
        tokens, share = self._mix.prompt.tokens, self._mix.prompt.share
        rest = np.ones(tokens.shape, dtype=bool)
        classes = []
        for target in self._goal.targets.classes:
            here = rest if target.max_prompt_tokens is None else rest & (tokens <= target.max_prompt_tokens)
            rest = rest & ~here
            if here.any():
                due = (
                    target.ttft_ms + target.ttft_per_thousand_prompt_tokens_ms * tokens[here] / 1000
                ) / 1000
                classes.append(
                    _Class(
                        prompts=np.flatnonzero(here),
                        share=share[here],
                        ttft_target_s=due,
                        tpot_target_s=target.tpot_target_s,
                    )
                )
        return tuple(classes)

    def _step_s(self, batch: Floats) -> Floats:
        gpu_s = self._tokens_s(batch) + self._timing.decode_attention_s * self._context * batch
        return np.asarray(self._timing.scale * gpu_s + self._timing.overhead_s)

    def _tokens_s(self, tokens: Floats) -> Floats:
        """`StepTiming.tokens_s` on an array."""
        knots, values = self._timing.knot_tokens, self._timing.knot_s
        slope = (values[-1] - values[-2]) / (knots[-1] - knots[-2])
        return np.interp(tokens, knots, values) + slope * np.maximum(tokens - knots[-1], 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Class:
    """One latency class, as points of the mix."""

    prompts: npt.NDArray[np.intp]
    share: Floats
    ttft_target_s: Floats
    tpot_target_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _FirstToken:
    """By shape × node of the batch (× prompt point)."""

    own_s: Floats
    wait_mean_s: Floats
    wait_variance: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _LaterTokens:
    """By shape × output point × node of the batch."""

    decode_s: Floats
    extra_s: Floats
    extra_variance: Floats
    untouched: Floats
    """Probability that no prefill falls into the request's life."""
    share: Floats

    def good(self, target_s: float) -> Floats:
        """By shape × node: P(TPOT ≤ target)."""
        slack = target_s - self.decode_s
        touched = np.maximum(1 - self.untouched, 1e-9)
        mean = self.extra_s / touched
        variance = np.maximum(self.extra_variance / touched - self.untouched * mean**2, 0.0)
        late = touched * (1 - gamma_cdf(slack, mean=mean, variance=variance))
        good = np.where(slack > 0, 1 - late, 0.0)
        return np.asarray(np.einsum("nok,o->nk", good, self.share) + (1 - self.share.sum()))

    @property
    def mean_s(self) -> Floats:
        return np.asarray(np.einsum("nok,o,k->n", self.decode_s + self.extra_s, self.share, _WEIGHTS))

    @property
    def variance(self) -> Floats:
        square = (self.decode_s + self.extra_s) ** 2 + self.extra_variance
        return np.asarray(np.einsum("nok,o,k->n", square, self.share, _WEIGHTS)) - self.mean_s**2


def _spread(mean: Floats, variance: Floats) -> Floats:
    """The nodes of a gamma variable, along a new last axis that the arguments already have as length 1."""
    ratio = np.minimum(variance / np.maximum(mean, 1e-9) ** 2, 4.0) / 9
    return np.asarray(mean * np.maximum(1 - ratio + _NODES * np.sqrt(ratio), 0.0) ** 3)
