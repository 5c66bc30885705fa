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
* TTFT is the rest of the step under way, the next one, all that arrived during the first, the request's own
  chunks, and what is spent outside of the steps.
* Beyond the KV cache or `max_sequences` requests queue for admission.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.distribution import gamma_cdf, gamma_quantile, normal_cdf
from paceline.planner.mix import Mix
from paceline.planner.observation import Goal
from paceline_core.batch import STEPS_AHEAD
from paceline_core.timing import FRONT_S, StepTiming

Floats = npt.NDArray[np.float64]

_BATCHES: Final = 48
_LEAST_BATCH: Final = 0.02
_NODES: Final = np.array([-3.750440, -2.366760, -1.154405, 0.0, 1.154405, 2.366760, 3.750440])
_WEIGHTS: Final = np.array([0.000548, 0.030757, 0.240123, 0.457143, 0.240123, 0.030757, 0.000548])
"""Gauss and Hermite's seven points of a standard normal variable."""
_OUTPUT_CUTS: Final = np.array([0.01, 0.03, 0.08, 0.2, 0.4, 0.7])
"""Output lengths are merged between these shares: finest where answers are short, whose mean gap varies most."""
_IMBALANCE: Final = 0.36
"""Own batch variance of a replica, over its mean, that power-of-two routing on in-flight counts leaves."""
_COUNT_NOISE: Final = 0.3
"""Variance of in-flight counts between replicas that is left at a batch of zero."""
_ELASTICITY_MOST: Final = 0.95
_LOAD_MOST: Final = 0.98
_CHAINS: Final = 1 + STEPS_AHEAD
"""What arrives in a step is computed so many steps later: the steps between are chains that do not touch."""
_PERCENTILES: Final = np.array([0.0, 1.6449, 2.3263])
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

    @property
    def ttft_s(self) -> Floats:
        """p50, p95 and p99, a row each: of a gamma variable with the mean and the variance predicted."""
        return _percentiles(self.ttft_mean_s, self.ttft_variance)

    @property
    def tpot_s(self) -> Floats:
        """The same."""
        return _percentiles(self.tpot_mean_s, self.tpot_variance)


def _percentiles(mean: Floats, variance: Floats) -> Floats:
    return gamma_quantile(_PERCENTILES[:, None], mean=mean, variance=np.maximum(variance, 0.0))


class ReplicaModel:
    """One (step timing, mix, engine limits): tables over the decode batch, and answers at any rate."""

    def __init__(self, timing: StepTiming, *, mix: Mix, goal: Goal) -> None:
        self._timing = timing
        self._mix = mix
        self._goal = goal
        self._context = mix.context_tokens
        self._steps = max(mix.decode_steps, 1e-3)
        self.most_batch = max(min(goal.max_sequences, timing.kv_cache_tokens / max(self._context, 1.0)), 1.0)
        self._batch = np.exp(np.linspace(np.log(_LEAST_BATCH), np.log(self.most_batch), _BATCHES))
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
        square = self._prefill_s**2
        self._prefill_square = square @ share
        self._prefill_cube = (square * self._prefill_s) @ share
        per_request = self._steps * self._decode_s / self._batch + self._prefill_mean
        self._rate = np.maximum.accumulate(1 / per_request) + np.arange(_BATCHES) * 1e-12
        self.most_rate = float(self._rate[-1])
        slope = np.gradient(np.log(self._decode_s), np.log(self._batch))
        self._elasticity = np.clip(slope, 0.0, _ELASTICITY_MOST)
        self._classes = self._by_class()
        output = mix.output.merged(_OUTPUT_CUTS)
        many = output.tokens > 1.5
        self._output_steps = output.tokens[many] - 1 if many.any() else np.array([1.0])
        self._output_share = output.share[many] if many.any() else np.array([1e-12])

    def outlook(self, rate: Floats, *, replicas: Floats) -> Outlook:
        """`rate` is requests/s of one replica, `replicas` how many share the traffic; arrays of one shape."""
        return self._at(np.interp(rate, self._rate, self._batch), rate=rate, replicas=replicas)

    def rate_at(self, batch: Floats) -> Floats:
        """The rate at which one replica has this mean batch."""
        return np.asarray(np.interp(batch, self._batch, self._rate))

    def gap_s(self, *, batch: float, rate: float, by_request: bool) -> tuple[float, float]:
        """Mean time between two tokens at a batch and a rate as measured, and its elasticity in κ.

        By token, as an engine's gaps are counted, or by request: short answers have longer gaps.
        """
        state = self._state(np.array([batch]), rate=np.array([rate]), replicas=np.array([2.0]))
        decode_s, load = float(state.decode_s[0]), float(state.load[0])
        on_gpu = max(decode_s - self._timing.overhead_s, 0.0) / decode_s
        gain = on_gpu + load / (1 - load)
        if by_request:
            return float(self._later_tokens(state).mean_s[0] / self._output_share.sum()), gain
        return float(state.cycle_s[0]) + float(state.chain_s[0]) / self._steps, gain

    def _at(self, batch: Floats, *, rate: Floats, replicas: Floats) -> Outlook:
        """`batch` is the batch that the means alone would give."""
        state = self._state(batch, rate=rate, replicas=replicas)
        first = self._first_token(state)
        later = self._later_tokens(state)
        good = np.zeros(batch.shape)
        for one in self._classes:
            in_time = gamma_cdf(
                one.ttft_target_s - first.own_s[:, one.prompts],
                mean=first.wait_mean_s[:, None],
                variance=first.wait_variance[:, None],
            )
            good += (in_time @ one.share) * later.good(one.tpot_target_s)
        utilization = rate / self.most_rate
        good *= self._admitted(state)
        share = self._mix.prompt.share
        ttft_mean = first.own_s @ share + first.wait_mean_s
        own_variance = first.own_s**2 @ share - (first.own_s @ share) ** 2
        return Outlook(
            attainment=np.where(utilization >= 1, 0.0, np.clip(good, 0.0, 1.0)),
            utilization=utilization,
            batch=state.batch,
            ttft_mean_s=ttft_mean,
            ttft_variance=own_variance + first.wait_variance,
            tpot_mean_s=later.mean_s,
            tpot_variance=later.variance,
        )

    def _state(self, batch: Floats, *, rate: Floats, replicas: Floats) -> _State:
        """Mean and variance of the batch, and the step that a request meets.

        Steps are a gated queue: what arrives during one is computed in the next but one, because the next
        is composed already. So a step's length C has E[C] = T_d/(1−ρ) and Var[C] = λ·E[C]·E[Δ²]/(1−ρ²), two
        neighbours are independent, and a request meets a step by its length. The step of a request's own
        prefill is long; what arrives during it is prefilled in the request's first gaps, and so on:
        `chain_s`, which lengthens its stay and with it the batch.
        """
        work_mean = np.interp(batch, self._batch, self._prefill_mean)
        work_square = np.interp(batch, self._batch, self._prefill_square)
        load = np.minimum(rate * work_mean, _LOAD_MOST)
        stalled = load / (1 - load)
        # Prompts may cost nothing in a table: then nothing stalls, whatever the ratio of 0 to 0.
        noise = 1 + stalled + stalled**2 * work_square / np.maximum(2 * work_mean**2, 1e-300)
        apart = _IMBALANCE * np.sqrt(noise)
        behind = 1 + rate * work_mean
        avoided = 2 * normal_cdf(-behind / np.sqrt(_IMBALANCE * batch + _COUNT_NOISE))
        even = 1 / replicas + (1 - 1 / replicas) * avoided
        work_square = work_square - (1 - even) * work_mean**2
        decode_s = np.interp(batch, self._batch, self._decode_s)
        cycle = decode_s / (1 - load)
        fed_back = load * even
        cycle_variance = rate * cycle * work_square / (1 - fed_back**2)
        met = cycle + cycle_variance / cycle
        skew = rate * np.interp(batch, self._batch, self._prefill_cube)
        skew += 3 * fed_back * rate * work_square * cycle_variance / cycle
        skew /= 1 - fed_back**3
        own_step = decode_s + work_mean + load * cycle + fed_back * (met - cycle)
        chain_s = np.maximum(own_step - cycle, 0.0) * fed_back / (1 - fed_back)
        elasticity = np.interp(batch, self._batch, self._elasticity)
        batch = np.minimum(batch + rate * chain_s / (1 - elasticity), self.most_batch)
        apart = apart * (1 - 1 / replicas) ** 2
        return _State(
            rate=rate,
            batch=batch,
            variance=np.maximum(batch, 1e-9) * (noise / (1 - elasticity) / replicas + apart),
            elasticity=elasticity,
            load=load,
            fed_back=fed_back,
            work_mean=work_mean,
            work_square=work_square,
            decode_s=np.interp(batch, self._batch, self._decode_s),
            cycle_s=cycle,
            cycle_variance=cycle_variance,
            met_s=met,
            met_variance=np.maximum(cycle_variance + skew - (cycle_variance / cycle) ** 2, 0.0),
            own_step_s=own_step,
            chain_s=chain_s,
        )

    def _first_token(self, state: _State) -> _FirstToken:
        """The rest of the step that the request meets, the next one, those that arrived in the first too, its own
        chunks, and what is spent outside of the steps."""
        busy = -np.expm1(-state.batch) * (1 - state.load) + state.load
        """Share of arrivals that find a step under way."""
        met = state.met_s
        with_met = met * (0.5 + state.load)
        ahead = STEPS_AHEAD * state.cycle_s
        mean = busy * (with_met + ahead)
        square = busy * (
            (state.met_variance + met**2) * ((0.5 + state.load) ** 2 + 1 / 12)
            + state.rate * met * state.work_square
            + 2 * with_met * ahead
            + STEPS_AHEAD * state.cycle_variance
            + ahead**2
        )
        left, part = self._grid_place(state.batch)
        low, high = self._prefill_s.take(left, axis=0), self._prefill_s.take(left + 1, axis=0)
        own = FRONT_S + low + (high - low) * part[:, None] + self._chunks * state.decode_s[:, None]
        return _FirstToken(own_s=own, wait_mean_s=mean, wait_variance=square - mean**2)

    def _later_tokens(self, state: _State) -> _LaterTokens:
        """A request of o tokens sees the mean batch of its m = o − 1 steps, and the prefills that fall into them.

        The m steps are two delay busy periods that alternate: y₀ is the step of its own prefill, yᵢ = T_d + the
        prefills that arrived during yᵢ₋₂. Their sum has the mean m·C + (y₀ − C)·ρ(1 − ρᵐᐟ²)/(1 − ρ), and each
        prefill counts with all those that arrive because of it.
        """
        steps = self._output_steps
        life = steps * (1 - state.elasticity[:, None]) / self._steps
        """The request's steps over those in which the batch forgets what it was."""
        kept = np.minimum(2 * (life + np.expm1(-life)) / np.maximum(life, 1e-6) ** 2, 1.0)
        around = _spread(state.batch[:, None, None], (state.variance[:, None] * kept)[..., None])
        load, gain = state.fed_back[:, None], 1 / (1 - state.fed_back[:, None])
        gone = load ** (steps / _CHAINS)
        excess = np.maximum(state.own_step_s - state.cycle_s, 0.0)[:, None]
        cycle = (state.decode_s / (1 - state.load))[:, None]
        own_variance = state.work_square - state.work_mean**2 + state.rate * state.met_s * state.work_square
        reach = steps - _CHAINS * (2 * load * (1 - gone) * gain - load**2 * (1 - gone**2) / (1 - load**2))
        total = steps * (cycle - state.decode_s[:, None]) + excess * load * (1 - gone) * gain
        variance = (state.rate * state.work_square)[:, None] * gain**2 * (
            cycle * reach + excess * gain * (1 - gone) ** 2
        ) + (load * (1 - gone) * gain) ** 2 * own_variance[:, None]
        alone = steps * state.decode_s[:, None] + excess
        return _LaterTokens(
            decode_s=np.interp(around, self._batch, self._decode_s),
            extra_s=(total / steps)[..., None],
            extra_variance=(variance / steps**2)[..., None],
            untouched=np.exp(-state.rate[:, None] * alone)[..., None],
            share=self._output_share,
        )

    def _admitted(self, state: _State) -> Floats:
        """Share of requests that need not queue for the KV cache or a place in the batch beyond their target.

        The batch is full with the normal tail's probability; then a place frees up every life/most_batch
        seconds, and the queue's tail falls as in a queue with that many servers.
        """
        room = np.maximum(self.most_batch - state.batch, 0.0)
        full = normal_cdf(-room / np.sqrt(state.variance))
        life_s = state.batch / np.maximum(state.rate, 1e-12)
        least_target = min(float(one.ttft_target_s.min()) for one in self._classes)
        return np.asarray(1 - full * np.exp(-least_target * room / np.maximum(life_s, 1e-9)))

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
                        prompts=slice(int(here.argmax()), here.size - int(here[::-1].argmax())),
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

    prompts: slice
    """One after the other: points ascend, and classes are told by prompt length."""
    share: Floats
    ttft_target_s: Floats
    tpot_target_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """One replica of each shape, in the mean. Arrays over the shapes."""

    rate: Floats
    batch: Floats
    variance: Floats
    """Of the batch, over time."""
    elasticity: Floats
    """ε: of a decode step's time in the batch, the rate held."""
    load: Floats
    """ρ: share of the time that prefills take."""
    fed_back: Floats
    """ρ for the arrivals during a longer step than most: routing sends fewer to a replica that is behind."""
    work_mean: Floats
    work_square: Floats
    decode_s: Floats
    cycle_s: Floats
    cycle_variance: Floats
    met_s: Floats
    met_variance: Floats
    own_step_s: Floats
    """Mean length of the step that holds a request's own prefill."""
    chain_s: Floats
    """What a request waits in its first gaps for those that arrived during that step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _FirstToken:
    """By shape (× prompt point)."""

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
        """By shape: P(TPOT ≤ target)."""
        slack = target_s - self.decode_s
        touched = np.maximum(1 - self.untouched, 1e-9)
        mean = self.extra_s / touched
        variance = np.maximum(self.extra_variance / touched - self.untouched * mean**2, 0.0)
        late = touched * (1 - gamma_cdf(slack, mean=mean, variance=variance))
        good = np.where(slack > 0, 1 - late, 0.0)
        return np.asarray(self.share @ (good @ _WEIGHTS).T + (1 - self.share.sum()))

    @property
    def mean_s(self) -> Floats:
        return np.asarray(self.share @ ((self.decode_s + self.extra_s) @ _WEIGHTS).T)

    @property
    def variance(self) -> Floats:
        square = (self.decode_s + self.extra_s) ** 2 + self.extra_variance
        return np.asarray(self.share @ (square @ _WEIGHTS).T) - self.mean_s**2


def _spread(mean: Floats, variance: Floats) -> Floats:
    """The nodes of a gamma variable, along a new last axis that the arguments already have as length 1."""
    ratio = np.minimum(variance / np.maximum(mean, 1e-9) ** 2, 4.0) / 9
    root = np.maximum(1 - ratio + _NODES * np.sqrt(ratio), 0.0)
    return np.asarray(mean * (root * root * root))
