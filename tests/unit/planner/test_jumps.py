"""Jumps that come back: when the next one is expected, and how high."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from paceline.planner import Planner, PlannerState
from paceline.planner.forecast import forecast
from paceline.planner.jumps import ExpectedJump, counted, expected_jump, is_jump, with_jump
from paceline.planner.state import ForecastMemory, Jump, JumpMemory
from tests.unit.planner.looks import TIMING, goal, look, nodes, shape

WINDOW_S, AHEAD_S, STEP_S = 60.0, 120.0, 15.0


def jumped(*at_s: float, until_s: float, low: float = 8.0, high: float = 24.0) -> JumpMemory:
    """Looks up to `until_s`; at each of those times, and for the two minutes after it, `high` comes where `low` was said."""
    memory = JumpMemory()
    now_s = 0.0
    while now_s < until_s:
        now_s += STEP_S
        jumps = any(one <= now_s < one + 120 for one in at_s)
        memory = counted(memory, passed_s=STEP_S, rate=high if jumps else low)
        if jumps:
            memory = with_jump(memory, now_s=now_s, passed_s=STEP_S, came=high, said=low, window_s=WINDOW_S)
    return memory


def expected(memory: JumpMemory, *, now_s: float) -> ExpectedJump | None:
    return expected_jump(memory, now_s=now_s, look_ahead_s=AHEAD_S)


def test_one_jump_is_a_change_of_level() -> None:
    assert expected(jumped(3600, until_s=5400), now_s=5400) is None


def test_the_second_one_is_expected_at_any_time_with_its_share_of_the_requests() -> None:
    jump = expected(jumped(3600, 9000, until_s=10800), now_s=10800)
    assert jump is not None
    in_jumps = 2 * 120 * 24.0
    assert jump.share == pytest.approx(in_jumps / (in_jumps + (10800 - 240) * 8.0), rel=0.1)
    assert jump.ratio == pytest.approx(3.0)


def test_a_jump_leads_no_higher_than_those_before() -> None:
    jump = expected(jumped(3600, 9000, until_s=10800), now_s=10800)
    assert jump is not None
    assert jump.rate_per_s(4.0) == pytest.approx(12.0)
    assert jump.rate_per_s(12.0) == pytest.approx(24.0)
    assert jump.rate_per_s(30.0) == 30.0


def test_two_rises_shortly_after_another_are_one_jump() -> None:
    assert expected(jumped(3600, 3900, until_s=5400), now_s=5400) is None


REGULAR = (3600, 7200, 10800, 14400)


def test_regular_ones_are_expected_when_their_time_has_come() -> None:
    memory = jumped(*REGULAR, until_s=15000)
    assert expected(memory, now_s=15000) is None
    assert expected(memory, now_s=17400) is None
    due = expected(memory, now_s=17760)
    assert due is not None
    assert due.share == 0.5


def test_a_regular_one_that_does_not_come_may_come_at_any_time() -> None:
    late = expected(jumped(*REGULAR, until_s=19000), now_s=19000)
    assert late is not None
    assert late.share < 0.15


def test_irregular_ones_may_come_at_any_time() -> None:
    memory = jumped(3600, 7200, 9000, 14400, until_s=15000)
    assert expected(memory, now_s=15000) is not None
    assert expected(memory, now_s=16000) is not None


def test_jumps_are_forgotten() -> None:
    soon = expected(jumped(3600, 9000, until_s=10800), now_s=10800)
    late = expected(jumped(3600, 9000, until_s=86400), now_s=86400)
    assert soon is not None
    assert late is not None
    assert late.share < soon.share / 5


@pytest.mark.parametrize(
    ("came", "said", "sigma", "jump"),
    [
        pytest.param(24.0, 8.0, 0.1, True, id="three times"),
        pytest.param(11.0, 8.0, 0.1, False, id="a third more"),
        pytest.param(24.0, 8.0, 0.4, False, id="as often happens here"),
        pytest.param(0.3, 0.1, 0.1, False, id="eighteen requests instead of six"),
        pytest.param(8.0, 0.0, 0.1, True, id="from nothing"),
        pytest.param(8.0, 24.0, 0.1, False, id="a drop"),
    ],
)
def test_a_jump_is_more_than_everyday_errors_and_counting(
    came: float, said: float, sigma: float, jump: bool
) -> None:
    assert is_jump(came, said, window_s=WINDOW_S, sigma=sigma) is jump


def test_capacity_stands_before_a_jump_that_is_due_however_large_the_service_is() -> None:
    planner, many = Planner(timing=TIMING), goal(allowed_tensor_parallel_sizes=(2,), max_replicas=400)
    state, current = PlannerState(), shape(2, 40)
    for minute in range(40):
        seen = look(100.0, current, now_s=60.0 * minute, goal=many, nodes=nodes(200, used=80))
        decision = planner.decide(seen, state)
        state, current = decision.state, decision.shape
    assert state.forecast is not None
    now_s = 60.0 * 40
    past = [
        Jump(since_s=at_s, until_s=at_s + 60, ratio=4.0, level_per_s=400.0, requests=24_000.0)
        for at_s in (now_s - hours * 3600 for hours in (4, 3, 2, 1))
    ]
    jumps = JumpMemory(requests=2e6, jumps=tuple(past))
    due = replace(state, forecast=replace(state.forecast, jumps=jumps))
    seen = look(100.0, current, now_s=now_s, goal=many, nodes=nodes(200, used=80))
    usual, ready = planner.decide(seen, state), planner.decide(seen, due)
    assert ready.feasible
    assert 2.5 * usual.shape.replicas < ready.shape.replicas < 4 * usual.shape.replicas
    assert "a jump to 400 as there were before" in ready.message
    assert "jump" not in usual.message


def hourly(s: float) -> float:
    return 24.0 if 1500 <= s % 3600 < 2400 else 8.0


def test_the_next_of_hourly_jumps_is_foreseen_and_the_other_hours_are_as_sure_as_before() -> None:
    memory: ForecastMemory | None = None
    said, before = None, None
    for number in range(1, (5 * 3600 + 1300) // 15):
        now_s = 15.0 * number
        rate = sum(hourly(now_s - back) for back in range(0, 60, 5)) / 12
        said, memory = forecast(memory, now_s=now_s, rate=rate, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
        if now_s == 3 * 3600:
            before = said
    assert before is not None
    assert before.jump is not None
    assert before.jump.share < 0.5
    assert said is not None
    assert said.jump is not None
    assert said.jump.share == 0.5
    assert said.jump.rate_per_s(said.ahead_per_s) == pytest.approx(24.0, rel=0.1)
    assert math.exp(said.sigma) < 1.1
