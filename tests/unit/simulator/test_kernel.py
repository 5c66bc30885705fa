"""The compiled engine takes short cuts; it must give what the step-by-step scheduler gives, to the microsecond."""

from __future__ import annotations

import numpy as np
import pytest

from paceline.planner import Shape
from paceline.simulator.core.layout import DONE
from paceline.simulator.core.traffic import Floats, Traffic
from paceline.simulator.core.world import World, WorldSettings
from paceline_core.batch import Batch
from paceline_core.timing import StepTiming


def _timing(kv_cache_tokens: int) -> StepTiming:
    return StepTiming(
        knot_tokens=(1, 64, 512, 8192),
        knot_s=(0.008, 0.009, 0.03, 0.4),
        prefill_attention_s=2e-9,
        decode_attention_s=3e-8,
        kv_cache_tokens=kv_cache_tokens,
        scale=1.1,
    )


def _traffic(n: int, *, rate: float, longest: int = 3000, wordiest: int = 250, seed: int = 3) -> Traffic:
    random = np.random.default_rng(seed)
    arrival_s = np.cumsum(random.exponential(1 / rate, size=n))
    return Traffic(
        arrival_s=arrival_s,
        prompt_tokens=random.integers(1, longest, size=n),
        output_tokens=random.integers(1, wordiest, size=n),
        end_s=float(arrival_s[-1]) + 1.0,
    )


def _step_by_step(
    traffic: Traffic, timing: StepTiming, *, max_sequences: int, max_batched_tokens: int
) -> tuple[Floats, Floats, int]:
    """One replica: first tokens, ends, preemptions."""
    batch = Batch(
        kv_cache_tokens=timing.kv_cache_tokens,
        max_sequences=max_sequences,
        max_batched_tokens=max_batched_tokens,
    )
    first_s, done_s = np.full(len(traffic), np.nan), np.full(len(traffic), np.nan)
    now, arrived = 0.0, 0
    while arrived < len(traffic) or batch.running or batch.waiting:
        if not batch.running and not batch.waiting:
            now = max(now, float(traffic.arrival_s[arrived]))
        while arrived < len(traffic) and traffic.arrival_s[arrived] <= now:
            batch.add(
                arrived,
                prompt_tokens=int(traffic.prompt_tokens[arrived]),
                output_tokens=int(traffic.output_tokens[arrived]),
            )
            arrived += 1
        step = batch.schedule()
        assert step is not None
        now += step.duration_s(timing)
        result = batch.complete(step)
        first_s[list(result.first_tokens)] = now
        done_s[list(result.finished)] = now
    return first_s, done_s, batch.preemptions


def _differences(
    traffic: Traffic, timing: StepTiming, *, max_sequences: int = 256, max_batched_tokens: int = 8192
) -> tuple[float, int]:
    """The largest, and how many preemptions there were."""
    world = World(
        traffic,
        WorldSettings(
            timing={1: timing},
            max_gpus=1,
            start_s=60.0,
            max_sequences=max_sequences,
            max_batched_tokens=max_batched_tokens,
        ),
        first=Shape(tensor_parallel_size=1, replicas=1),
        seed=0,
    )
    while not world.idle:
        world.advance(world.now_s + 37.0)
    first_s, done_s, preemptions = _step_by_step(
        traffic, timing, max_sequences=max_sequences, max_batched_tokens=max_batched_tokens
    )
    assert np.all(world.state == DONE)
    assert world.preemptions == preemptions
    largest = max(np.abs(world.first_token_s - first_s).max(), np.abs(world.done_s - done_s).max())
    return float(largest), preemptions


@pytest.mark.parametrize(
    ("rate", "wordiest", "kv_cache_tokens", "max_sequences", "max_batched_tokens"),
    [
        pytest.param(1.0, 250, 400_000, 256, 8192, id="light"),
        pytest.param(6.0, 4, 400_000, 256, 8192, id="idle again and again"),
        pytest.param(40.0, 250, 400_000, 256, 8192, id="saturated"),
        pytest.param(20.0, 250, 12_000, 256, 8192, id="preempting"),
        pytest.param(20.0, 250, 60_000, 256, 512, id="small chunks"),
        pytest.param(20.0, 250, 400_000, 16, 16, id="budget taken by decodes"),
        pytest.param(20.0, 250, 8_000, 6, 700, id="few sequences, little room"),
    ],
)
def test_short_cuts_give_what_every_step_gives(
    rate: float, wordiest: int, kv_cache_tokens: int, max_sequences: int, max_batched_tokens: int
) -> None:
    largest_s, preemptions = _differences(
        _traffic(1000, rate=rate, wordiest=wordiest, longest=300 if max_batched_tokens == 16 else 3000),
        _timing(kv_cache_tokens),
        max_sequences=max_sequences,
        max_batched_tokens=max_batched_tokens,
    )
    assert largest_s < 1e-6
    if kv_cache_tokens == 12_000:
        assert preemptions > 50


@pytest.mark.slow
def test_twenty_thousand_requests_with_preemption_agree_within_a_microsecond() -> None:
    largest_s, preemptions = _differences(_traffic(20_000, rate=4.0), _timing(12_000))
    assert preemptions > 500
    assert largest_s < 1e-6
