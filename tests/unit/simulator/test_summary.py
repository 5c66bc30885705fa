from __future__ import annotations

import numpy as np
import pytest

from paceline.planner import Shape
from paceline.simulator.summary import (
    Calm,
    Outcomes,
    Windows,
    attainment_by_decile,
    percentiles,
    summarize,
)


def _outcomes(good: list[bool], *, every_s: float = 60.0) -> Outcomes:
    n = len(good)
    return Outcomes(
        arrival_s=np.arange(n, dtype=float) * every_s,
        prompt_tokens=np.arange(n, dtype=float),
        ttft_s=np.where(good, 0.1, np.nan),
        tpot_s=np.full(n, 0.02),
        good=np.array(good, dtype=bool),
        failed=~np.array(good, dtype=bool),
    )


def _shape(size: int, n: int) -> Shape:
    return Shape(tensor_parallel_size=size, replicas=n)


def test_deciles_go_from_short_prompts_to_long_ones() -> None:
    found = attainment_by_decile(_outcomes([True] * 90 + [False] * 10))
    assert found == (1.0,) * 9 + (0.0,)


def test_an_empty_decile_is_unknown() -> None:
    assert attainment_by_decile(_outcomes([True, False])) == (1.0, 0.0, *[None] * 8)


def test_recovery_is_the_longest_time_below_the_objective() -> None:
    good = [True] * 10 + [False] * 20 + [True] * 10 + [False] * 10
    windows = Windows.of(_outcomes(good))
    assert windows.share_meeting(0.99) == pytest.approx(2 / 5)
    assert windows.time_to_recover_s(0.99, end_s=3000) == 1200
    assert windows.time_to_recover_s(0.99, end_s=5000) == 2600


def test_a_reversal_is_a_turn_within_ten_minutes_and_a_switch_is_none() -> None:
    asked = [
        (0.0, _shape(2, 2)),
        (100.0, _shape(2, 3)),
        (400.0, _shape(2, 2)),
        (450.0, _shape(2, 2)),
        (1100.0, _shape(2, 3)),
        (1200.0, _shape(4, 1)),
        (1300.0, _shape(4, 2)),
    ]
    assert Calm.of(asked) == Calm(shape_changes=5, reversals_within_10_min=1, tp_switches=1)


def test_percentiles_leave_out_what_never_came() -> None:
    assert percentiles(np.array([np.nan, 1.0, 3.0])).p50 == 2.0
    assert percentiles(np.array([np.nan])).p99 is None


def test_a_run_is_summed_up() -> None:
    found = summarize(
        _outcomes([True] * 99 + [False]),
        asked=[(0.0, _shape(2, 2))],
        gpu_hours=12.0,
        objective=0.99,
        end_s=6000.0,
        oracle_gpu_hours=10.0,
        decisions=400,
        deciding_s=0.2,
        wall_s=1.5,
    )
    assert (found.requests, found.failed, found.attainment) == (100, 1, 0.99)
    assert found.regret == pytest.approx(1.2)
    assert found.decisions_per_second == pytest.approx(2000)
    assert found.time_to_recover_s == 600
    assert found.ttft_s.p99 == pytest.approx(0.1)


def test_without_a_bound_there_is_no_regret() -> None:
    found = summarize(
        _outcomes([]),
        asked=[],
        gpu_hours=1.0,
        objective=0.99,
        end_s=1.0,
        oracle_gpu_hours=None,
        decisions=0,
        deciding_s=0.0,
        wall_s=0.1,
    )
    assert (found.attainment, found.regret, found.decisions_per_second) == (None, None, None)
