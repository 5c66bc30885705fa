"""The analytic model: bounds it keeps, limits it must reach, and the order that it must not break."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from paceline.planner import Goal
from paceline.planner.mix import Mix, Points, points_of
from paceline.planner.performance import ReplicaModel
from paceline.planner.surface import Surface, misses
from paceline_core.timing import FRONT_S, StepTiming
from tests.unit.planner.looks import CHAT_OUTPUT, CHAT_PROMPT, TIMING, goal


def one_length(prompt_tokens: float, output_tokens: float, *, cached_share: float = 0.0) -> Mix:
    def point(tokens: float) -> Points:
        return Points(tokens=np.array([tokens]), share=np.array([1.0]))

    return Mix(prompt=point(prompt_tokens), output=point(output_tokens), cached_share=cached_share)


def chat() -> Mix:
    prompt, output = points_of(CHAT_PROMPT), points_of(CHAT_OUTPUT)
    assert prompt is not None
    assert output is not None
    return Mix(prompt=prompt, output=output, cached_share=0.0)


def surface(size: int = 2, *, mix: Mix | None = None, aim: Goal | None = None) -> Surface:
    return Surface(ReplicaModel(TIMING[size], mix=mix or chat(), goal=aim or goal()))


def test_the_points_have_the_exact_mean_of_the_histogram() -> None:
    points = points_of(CHAT_PROMPT)
    assert points is not None
    assert points.mean == pytest.approx(CHAT_PROMPT.mean_tokens, rel=1e-9)
    assert points.share.sum() == pytest.approx(1.0)


def test_the_points_stay_in_their_buckets() -> None:
    points = points_of(replace(CHAT_PROMPT, counts=(0,) * 11 + (10.0, 0, 0), mean_tokens=3000.0))
    assert points is not None
    assert points.tokens.min() >= 2000
    assert points.tokens.max() <= 5000


def test_a_lone_request_takes_what_the_steps_take() -> None:
    model = ReplicaModel(TIMING[2], mix=one_length(2000, 200), goal=goal())
    alone = model.outlook(np.array([1e-6]), replicas=np.array([1.0]))
    prefill_s = TIMING[2].step_s(prefills=[(2000, 0)])
    decode_s = TIMING[2].step_s(decodes=1, decode_context_tokens=2100)
    assert alone.ttft_mean_s[0] == pytest.approx(FRONT_S + prefill_s, rel=0.02)
    assert alone.tpot_mean_s[0] == pytest.approx(decode_s, rel=0.02)


def test_a_prompt_longer_than_the_budget_is_computed_in_several_steps() -> None:
    aim = goal(max_batched_tokens=2048)
    model = ReplicaModel(TIMING[2], mix=one_length(8000, 100), goal=aim)
    alone = model.outlook(np.array([1e-6]), replicas=np.array([1.0]))
    chunks_s = sum(
        TIMING[2].step_s(prefills=[(min(2047, 8000 - prior), prior)]) for prior in range(0, 8000, 2047)
    )
    assert alone.ttft_mean_s[0] == pytest.approx(FRONT_S + chunks_s, rel=0.1)


def test_who_comes_to_a_busy_replica_waits_a_step_and_a_half() -> None:
    """Prompts of one token hardly lengthen a step: half of the one under way, the one composed ahead, the own."""
    model = ReplicaModel(TIMING[2], mix=one_length(1, 400), goal=goal())
    outlook = model.outlook(model.rate_at(np.array([12.0])), replicas=np.array([4.0]))
    step_s = float(outlook.tpot_mean_s[0])
    assert outlook.ttft_mean_s[0] - FRONT_S == pytest.approx(2.5 * step_s, rel=0.05)


def test_the_highest_rate_is_where_work_fills_the_time() -> None:
    """At the batch limit, the decode steps and the prefills of each second last one second."""
    model = ReplicaModel(TIMING[2], mix=one_length(1000, 200), goal=goal(max_sequences=64))
    rate = model.most_rate
    decode_s = TIMING[2].step_s(decodes=64, decode_context_tokens=64 * 1100)
    prefill_s = TIMING[2].step_s(prefills=[(1000, 0)], decodes=64, decode_context_tokens=64 * 1100) - decode_s
    steps_per_s = rate * 199 / 64
    assert steps_per_s * decode_s + rate * prefill_s == pytest.approx(1.0, rel=0.03)


def test_more_traffic_is_never_better() -> None:
    rates = np.linspace(0.01, 1.2, 200)
    one = surface()
    miss = one.miss(rates * one.most_rate, replicas=3)
    assert (np.diff(miss) >= -1e-12).all()
    assert miss[-1] == 1.0


def test_more_replicas_carry_more_each() -> None:
    """Pooling: at the same rate of one replica, eight miss less than one."""
    one = surface(4)
    rate = np.array([0.75 * one.most_rate])
    alone, pooled = (float(one.miss(rate, replicas=n)[0]) for n in (1, 8))
    assert pooled < 0.8 * alone


def test_sizes_that_are_read_together_say_what_each_says_alone() -> None:
    sizes = (surface(2), surface(4))
    replicas = np.array([1, 5, 40, 2, 24])
    rates = np.array([[0.1], [0.6], [1.1]]) * np.repeat([one.most_rate for one in sizes], (3, 2))
    together = misses(sizes, (3, 2), rate=rates, replicas=replicas)
    alone = [
        sizes[0].miss(rates[:, :3], replicas=replicas[:3]),
        sizes[1].miss(rates[:, 3:], replicas=replicas[3:]),
    ]
    assert (together == np.hstack(alone)).all()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_cached_prompts_leave_room(share: float) -> None:
    cold, warm = surface(mix=one_length(3000, 100)), surface(mix=one_length(3000, 100, cached_share=share))
    assert warm.most_rate > cold.most_rate * 1.2


def test_a_small_kv_cache_limits_the_rate() -> None:
    roomy = ReplicaModel(TIMING[2], mix=chat(), goal=goal())
    small = ReplicaModel(replace(TIMING[2], kv_cache_tokens=20_000), mix=chat(), goal=goal())
    assert small.most_batch < 20
    assert small.most_rate < roomy.most_rate


def test_long_prompts_are_judged_by_their_own_class() -> None:
    """A target that grows with the prompt is met where a flat one is not."""
    flat, growing = goal(ttft_ms=300), goal(ttft_ms=300, ttft_per_thousand_ms=80)
    mix = one_length(6000, 100)
    assert surface(mix=mix, aim=flat).floor_attainment < 0.01
    assert surface(mix=mix, aim=growing).floor_attainment > 0.99


def test_one_token_answers_are_judged_by_the_first_token_alone() -> None:
    assert surface(1, mix=one_length(500, 1), aim=goal(tpot_ms=1)).floor_attainment > 0.99


def test_prompts_that_cost_nothing_stall_nothing() -> None:
    """A table of one constant step: the batch alone limits the rate."""
    constant = StepTiming(
        knot_tokens=(1, 8192),
        knot_s=(0.02, 0.02),
        prefill_attention_s=0.0,
        decode_attention_s=0.0,
        kv_cache_tokens=1_000_000,
        overhead_s=0.0,
    )
    model = ReplicaModel(constant, mix=chat(), goal=goal(max_sequences=64))
    outlook = model.outlook(np.array([0.1, 0.9]) * model.most_rate, replicas=np.array([1.0, 4.0]))
    assert outlook.tpot_mean_s == pytest.approx([0.02, 0.02], rel=0.01)
    assert outlook.attainment[0] > 0.99
    assert np.isfinite([outlook.ttft_s, outlook.tpot_s]).all()
