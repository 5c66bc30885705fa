"""The reference scheduler: what a step holds, what is admitted, who is preempted, and that nothing gets lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline_core.batch import KV_BLOCK_TOKENS, Batch, Prefill, Step, kv_blocks
from paceline_core.timing import StepTiming

ROOMY = 1_000_000


def scheduled(batch: Batch) -> Step:
    step = batch.schedule()
    assert step is not None
    return step


def test_a_lone_request_gets_its_first_token_with_its_prompt_and_one_a_step_after() -> None:
    batch = Batch(kv_cache_tokens=ROOMY)
    batch.add(7, prompt_tokens=100, output_tokens=3)
    step = scheduled(batch)
    assert step.prefills == (Prefill(request_id=7, chunk_tokens=100, prior_tokens=0, last=True),)
    assert batch.complete(step).first_tokens == (7,)
    for context in (101, 102):
        step = scheduled(batch)
        assert (step.decodes, step.prefills, step.decode_context_tokens) == ((7,), (), context)
        result = batch.complete(step)
    assert result.finished == (7,)
    assert batch.schedule() is None
    assert (batch.running, batch.kv_cache_usage) == (0, 0)


def test_decodes_come_first_and_a_prompt_is_cut_to_what_the_budget_leaves() -> None:
    batch = Batch(kv_cache_tokens=ROOMY, max_batched_tokens=512, max_sequences=8)
    batch.add(0, prompt_tokens=10, output_tokens=9)
    batch.complete(scheduled(batch))
    batch.add(1, prompt_tokens=600, output_tokens=9)
    batch.add(2, prompt_tokens=10, output_tokens=9)
    batch.complete(scheduled(batch))
    step = scheduled(batch)
    assert step.decodes == (0,)
    assert step.prefills == (Prefill(request_id=1, chunk_tokens=511, prior_tokens=0, last=False),)
    assert batch.complete(step).tokens == (0,)
    step = scheduled(batch)
    assert [(one.request_id, one.chunk_tokens, one.prior_tokens) for one in step.prefills] == [
        (1, 89, 511),
        (2, 10, 0),
    ]


def test_who_comes_to_a_busy_engine_is_not_in_the_step_that_is_composed_already() -> None:
    batch = Batch(kv_cache_tokens=ROOMY)
    batch.add(0, prompt_tokens=10, output_tokens=9)
    step = scheduled(batch)
    batch.add(1, prompt_tokens=10, output_tokens=9)
    batch.complete(step)
    joined: list[list[int]] = []
    for number in range(3):
        if number == 1:
            batch.add(2, prompt_tokens=10, output_tokens=9)
        step = scheduled(batch)
        joined.append([one.request_id for one in step.prefills])
        batch.complete(step)
    assert joined == [[], [1], [2]]


def test_an_idle_engine_does_not_work_ahead() -> None:
    batch = Batch(kv_cache_tokens=ROOMY)
    batch.add(0, prompt_tokens=10, output_tokens=1)
    step = scheduled(batch)
    batch.add(1, prompt_tokens=10, output_tokens=2)
    batch.add(2, prompt_tokens=10, output_tokens=2)
    assert batch.complete(step).finished == (0,)
    assert [one.request_id for one in scheduled(batch).prefills] == [1, 2]


def test_steps_go_in_one_only_until_somebody_may_join() -> None:
    batch = Batch(kv_cache_tokens=ROOMY)
    batch.add(0, prompt_tokens=10, output_tokens=9)
    batch.complete(scheduled(batch))
    step = scheduled(batch)
    assert batch.repeats(step) == 8
    batch.add(1, prompt_tokens=10, output_tokens=9)
    batch.complete(step)
    assert batch.repeats(scheduled(batch)) == 1


def test_cached_prefixes_are_whole_blocks_and_leave_a_token_to_compute() -> None:
    batch = Batch(kv_cache_tokens=ROOMY)
    batch.add(0, prompt_tokens=64, output_tokens=1, cached_tokens=64)
    batch.add(1, prompt_tokens=64, output_tokens=1, cached_tokens=20)
    assert [(one.chunk_tokens, one.prior_tokens) for one in scheduled(batch).prefills] == [(16, 48), (48, 16)]


def test_a_prompt_that_does_not_fit_the_free_cache_waits_and_holds_up_those_behind_it() -> None:
    batch = Batch(kv_cache_tokens=10 * KV_BLOCK_TOKENS)
    batch.add(0, prompt_tokens=6 * KV_BLOCK_TOKENS, output_tokens=2)
    batch.add(1, prompt_tokens=5 * KV_BLOCK_TOKENS, output_tokens=2)
    batch.add(2, prompt_tokens=1, output_tokens=2)
    assert [one.request_id for one in scheduled(batch).prefills] == [0]
    assert batch.waiting == 2


def test_never_more_sequences_than_allowed() -> None:
    batch = Batch(kv_cache_tokens=ROOMY, max_sequences=2)
    for request_id in range(3):
        batch.add(request_id, prompt_tokens=1, output_tokens=2)
    assert len(scheduled(batch).prefills) == 2


def test_a_full_cache_preempts_the_youngest_which_is_computed_again_with_what_it_had_said() -> None:
    batch = Batch(kv_cache_tokens=4 * KV_BLOCK_TOKENS)
    batch.add(0, prompt_tokens=31, output_tokens=30)
    batch.add(1, prompt_tokens=31, output_tokens=30)
    batch.complete(scheduled(batch))
    batch.complete(scheduled(batch))
    step = scheduled(batch)
    assert (step.decodes, step.prefills, step.preempted) == ((0,), (), (1,))
    result = batch.complete(step)
    while 0 not in result.finished:
        step = scheduled(batch)
        assert step.prefills == ()
        result = batch.complete(step)
    assert scheduled(batch).prefills == (Prefill(request_id=1, chunk_tokens=33, prior_tokens=0, last=True),)


def test_an_aborted_request_gives_its_room_back_and_gets_nothing_more() -> None:
    batch = Batch(kv_cache_tokens=ROOMY)
    batch.add(0, prompt_tokens=40, output_tokens=5)
    step = scheduled(batch)
    assert batch.abort(0)
    assert batch.complete(step).tokens == ()
    assert batch.kv_cache_usage == 0
    assert not batch.abort(0)


def test_a_request_that_can_never_fit_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="never fit"):
        Batch(kv_cache_tokens=160).add(0, prompt_tokens=160, output_tokens=2)


def test_a_step_takes_the_time_of_its_parts() -> None:
    timing = StepTiming(
        knot_tokens=(1, 101),
        knot_s=(0.01, 0.02),
        prefill_attention_s=1e-6,
        decode_attention_s=1e-5,
        kv_cache_tokens=ROOMY,
        overhead_s=0.5,
    )
    prefill = Prefill(request_id=1, chunk_tokens=49, prior_tokens=10, last=True)
    step = Step(decodes=(0, 2), prefills=(prefill,), decode_context_tokens=300)
    assert step.duration_s(timing) == pytest.approx(0.5 + 0.015 + 1e-6 * 49 * 34.5 + 1e-5 * 300)


requests = st.lists(
    st.tuples(st.integers(1, 200), st.integers(1, 40), st.integers(0, 100), st.integers(0, 30)), max_size=25
)


@settings(deadline=None)
@given(requests=requests, sequences=st.integers(1, 8), blocks=st.integers(15, 40))
def test_every_request_gets_all_its_tokens_whatever_the_pressure(
    requests: list[tuple[int, int, int, int]], sequences: int, blocks: int
) -> None:
    batch = Batch(kv_cache_tokens=blocks * KV_BLOCK_TOKENS, max_sequences=sequences, max_batched_tokens=64)
    pending = sorted(enumerate(requests), key=lambda one: one[1][3])
    got: Counter[int] = Counter()
    finished: list[int] = []
    for round_number in range(20_000):
        while pending and pending[0][1][3] <= round_number:
            request_id, (prompt, output, cached, _) = pending.pop(0)
            batch.add(request_id, prompt_tokens=prompt, output_tokens=output, cached_tokens=cached)
        step = batch.schedule()
        if step is None:
            assert batch.waiting == 0
            if not pending:
                break
            continue
        assert 0 < step.tokens <= 64
        assert batch.running <= sequences
        assert 0 <= batch.kv_cache_usage <= 1
        assert sum(not one.last for one in step.prefills) <= 1
        result = batch.complete(step)
        got.update(result.tokens)
        finished.extend(result.finished)
    assert sorted(finished) == list(range(len(requests)))
    assert [got[index] for index in range(len(requests))] == [one[1] for one in requests]
    assert batch.kv_cache_usage == 0


def test_blocks_are_rounded_up() -> None:
    assert [kv_blocks(tokens) for tokens in (0, 1, 16, 17)] == [0, 1, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 90)), min_size=1, max_size=12),
    blocks=st.integers(31, 90),
    budget=st.integers(12, 512),
)
def test_steps_that_are_alike_may_be_taken_in_one_go(
    lengths: list[tuple[int, int]], blocks: int, budget: int
) -> None:
    """The same tokens at the same times, preemption included."""
    timing = StepTiming(
        knot_tokens=(1, 512),
        knot_s=(0.010, 0.020),
        prefill_attention_s=1e-8,
        decode_attention_s=1e-6,
        kv_cache_tokens=blocks * KV_BLOCK_TOKENS,
    )

    def run(*, in_one_go: bool) -> tuple[dict[int, float], int, int]:
        batch = Batch(kv_cache_tokens=timing.kv_cache_tokens, max_sequences=12, max_batched_tokens=budget)
        for request, (prompt, output) in enumerate(lengths):
            batch.add(request, prompt_tokens=prompt, output_tokens=output)
        now_s, looks = 0.0, 0
        ended: dict[int, float] = {}
        while step := batch.schedule():
            times = batch.repeats(step) if in_one_go else 1
            now_s += step.duration_s(timing, times=times)
            ended |= dict.fromkeys(batch.complete(step, times=times).finished, now_s)
            looks += 1
        assert batch.kv_cache_usage == 0
        return ended, batch.preemptions, looks

    (fast, fast_preemptions, fewer), (slow, slow_preemptions, looks) = (
        run(in_one_go=True),
        run(in_one_go=False),
    )
    assert fast == pytest.approx(slow, abs=1e-9)
    assert fast_preemptions == slow_preemptions
    assert fewer <= looks
