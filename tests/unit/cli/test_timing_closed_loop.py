import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.cli.timing_closed_loop import NeverFits, closed_loop, draw_lengths
from paceline_core.timing import FRONT_S, StepTiming


def timing(*, kv_cache_tokens: int = 100_000, attention_s: float = 1e-7) -> StepTiming:
    return StepTiming(
        knot_tokens=(1, 256, 2048),
        knot_s=(0.010, 0.015, 0.100),
        prefill_attention_s=1e-9,
        decode_attention_s=attention_s,
        kv_cache_tokens=kv_cache_tokens,
        overhead_s=0.001,
    )


def test_one_request_alone_takes_its_steps() -> None:
    step = timing()
    times = closed_loop(step, [(1000, 4)], concurrency=1, max_batched_tokens=8192)
    assert times.ttft_s == pytest.approx(FRONT_S + step.step_s(prefills=[(1000, 0)]))
    decodes = [step.step_s(decodes=1, decode_context_tokens=context) for context in (1001, 1002, 1003)]
    assert times.tpot_s == pytest.approx(sum(decodes) / 3)


def test_a_long_prompt_is_computed_in_chunks() -> None:
    step = timing()
    times = closed_loop(step, [(5000, 1)], concurrency=1, max_batched_tokens=2048)
    chunks = [(2048, 0), (2048, 2048), (904, 4096)]
    assert times.ttft_s == pytest.approx(FRONT_S + sum(step.step_s(prefills=[chunk]) for chunk in chunks))


def test_a_smaller_budget_spares_those_who_decode() -> None:
    lengths = draw_lengths(prompt_tokens=4096, output_tokens=64, requests=80, seed=1)
    small, large = (
        closed_loop(timing(attention_s=0.0), lengths, concurrency=8, max_batched_tokens=budget)
        for budget in (512, 8192)
    )
    assert small.tpot_s != large.tpot_s
    assert small.ttft_s > large.ttft_s


def test_who_comes_while_others_run_waits_for_the_step_that_is_already_composed() -> None:
    """Steps of 1 s. The first request ends with step 0; the third, which follows it, is in step 2, not in step 1."""
    step = StepTiming(
        knot_tokens=(1, 4096),
        knot_s=(1.0, 1.0),
        prefill_attention_s=0.0,
        decode_attention_s=0.0,
        kv_cache_tokens=10_000,
        overhead_s=0.0,
    )
    times = closed_loop(step, [(10, 1), (10, 9), (10, 1)], concurrency=2, max_batched_tokens=4096)
    assert times.ttft_s == pytest.approx(FRONT_S + (1 + 1 + 2) / 3)


def test_an_idle_engine_takes_a_request_at_once() -> None:
    times = closed_loop(timing(), [(10, 1), (10, 1)], concurrency=1, max_batched_tokens=4096)
    assert times.ttft_s == pytest.approx(FRONT_S + timing().step_s(prefills=[(10, 0)]))


def test_a_full_cache_makes_requests_wait() -> None:
    lengths = draw_lengths(prompt_tokens=1000, output_tokens=200, requests=60, seed=0)
    roomy = closed_loop(timing(), lengths, concurrency=16, max_batched_tokens=8192)
    full = closed_loop(timing(kv_cache_tokens=4000), lengths, concurrency=16, max_batched_tokens=8192)
    assert full.ttft_s > 3 * roomy.ttft_s
    assert full.tpot_s < roomy.tpot_s


def test_a_request_longer_than_the_cache_is_an_error() -> None:
    with pytest.raises(NeverFits):
        closed_loop(timing(kv_cache_tokens=512), [(1000, 2)], concurrency=1, max_batched_tokens=8192)
    with pytest.raises(NeverFits):
        closed_loop(timing(kv_cache_tokens=512), [(500, 100)], concurrency=1, max_batched_tokens=8192)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 900), st.integers(1, 120)), min_size=1, max_size=25),
    concurrency=st.integers(1, 12),
    budget=st.integers(64, 2048),
    kv_cache_tokens=st.integers(1040, 6000),
)
def test_skipping_steps_that_are_alike_changes_nothing(
    lengths: list[tuple[int, int]], concurrency: int, budget: int, kv_cache_tokens: int
) -> None:
    """With preemption too: the cache holds one of the longest requests and little more."""
    skipped, stepped = (
        closed_loop(
            timing(kv_cache_tokens=kv_cache_tokens),
            lengths,
            concurrency=concurrency,
            max_batched_tokens=budget,
            skip=skip,
        )
        for skip in (True, False)
    )
    assert skipped.ttft_s == pytest.approx(stepped.ttft_s, abs=1e-6)
    assert skipped.tpot_s == pytest.approx(stepped.tpot_s, abs=1e-6)


def test_lengths_are_drawn_from_the_upper_fifth_and_by_seed() -> None:
    lengths = draw_lengths(prompt_tokens=1000, output_tokens=1, requests=500, seed=3)
    assert {output for _, output in lengths} == {1}
    assert min(prompt for prompt, _ in lengths) >= 800
    assert max(prompt for prompt, _ in lengths) <= 1000
    assert lengths == draw_lengths(prompt_tokens=1000, output_tokens=1, requests=500, seed=3)
    assert lengths != draw_lengths(prompt_tokens=1000, output_tokens=1, requests=500, seed=4)
