"""The rate one look-ahead from now."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from paceline.planner.forecast import Forecast, extended, forecast
from paceline.planner.state import ForecastMemory

WINDOW_S, AHEAD_S = 60.0, 120.0


def followed(
    rate_at: Callable[[float], float], *, until_s: float, seed: int | None = None, step_s: float = 15.0
) -> tuple[Forecast, ForecastMemory]:
    """The forecast after looks up to `until_s`, each counting the arrivals of its window."""
    rng = np.random.default_rng(seed)
    memory: ForecastMemory | None = None
    said: Forecast | None = None
    for now_s in np.arange(WINDOW_S, until_s + 1, step_s):
        rate = float(np.mean([rate_at(float(now_s) - back) for back in range(0, 60, 5)]))
        if seed is not None:
            rate = rng.poisson(rate * WINDOW_S) / WINDOW_S
        said, memory = forecast(
            memory, now_s=float(now_s), rate=rate, window_s=WINDOW_S, look_ahead_s=AHEAD_S
        )
    assert said is not None
    assert memory is not None
    return said, memory


def test_a_steady_rate_is_told_as_it_is_and_trusted_more_with_time() -> None:
    early, _ = followed(lambda _: 10.0, until_s=300, seed=1)
    late, _ = followed(lambda _: 10.0, until_s=4 * 3600, seed=1)
    assert late.ahead_per_s == pytest.approx(10.0, rel=0.1)
    assert late.sigma < early.sigma
    assert late.sigma < 0.08


def test_a_ramp_is_followed_ahead_of_the_window() -> None:
    said, _ = followed(lambda s: 5.0 + max(s - 1800, 0) * 0.005, until_s=5400)
    then = 5.0 + (5400 + AHEAD_S - 1800) * 0.005
    assert said.ahead_per_s == pytest.approx(then, rel=0.05)


def test_a_jump_is_believed_at_once() -> None:
    said, memory = followed(lambda _: 10.0, until_s=3600, seed=2)
    after, _ = forecast(memory, now_s=3615.0, rate=30.0, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
    assert said.ahead_per_s < 12
    assert after.ahead_per_s > 25


def test_a_jump_between_two_near_looks_is_carried_on_within_bounds() -> None:
    """Looks that are closer than scrapes find the whole rise in one of them."""
    memory: ForecastMemory | None = None
    for now_s in range(600):
        _, memory = forecast(memory, now_s=now_s, rate=2.0, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
    said, memory = forecast(memory, now_s=600.0, rate=16.0, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
    assert 16 < said.ahead_per_s <= 4 * 16
    said, _ = forecast(memory, now_s=601.0, rate=16.0, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
    assert said.ahead_per_s < 2 * 16


def test_the_first_window_fills_up_and_is_no_rise() -> None:
    """A service whose requests begin now: the window counts a quarter of them after 15 s, half of them after 30."""
    memory: ForecastMemory | None = None
    for now_s, rate in ((15.0, 1.0), (30.0, 2.0), (45.0, 3.0)):
        said, memory = forecast(memory, now_s=now_s, rate=rate, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
        assert said.ahead_per_s <= 4.4, "four a second come"


def test_one_jump_does_not_make_a_service_expect_many_times_its_traffic() -> None:
    """Eight times the rate for two minutes, and ten quiet ones after that."""
    said, _ = followed(lambda s: 12.0 if 600 <= s < 720 else 1.5, until_s=1320)
    assert said.ahead_per_s < 1.8
    assert said.ahead_per_s * math.exp(math.sqrt(3) * said.sigma) < 12


def test_the_noise_of_counting_is_no_jump() -> None:
    _, memory = followed(lambda _: 0.5, until_s=3600, seed=3)
    after, _ = forecast(memory, now_s=3615.0, rate=0.7, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
    assert after.ahead_per_s < 0.62


def day(s: float) -> float:
    """Quiet, a steep morning at 8:00, and a slow evening."""
    hour = s / 3600 % 24
    return 4.0 + 16.0 / (1 + math.exp(-(hour - 8.0) * 12)) / (1 + math.exp((hour - 18.0) * 2))


def test_yesterday_raises_the_answer_before_the_morning_rises() -> None:
    morning_s = 7.75 * 3600
    said, _ = followed(day, until_s=86400 * 2 + morning_s, step_s=120.0)
    without, _ = followed(day, until_s=morning_s, step_s=120.0)
    assert said.seasonal
    assert said.ahead_per_s > without.ahead_per_s * 1.02


def test_a_misleading_yesterday_stays_silent() -> None:
    """Flat days after one with a morning: the curve would have raised the answer, and would have been wrong."""
    _, memory = followed(day, until_s=86400, step_s=120.0)
    raised = False
    for now_s in np.arange(86400 + 120, 86400 * 3, 120.0):
        said, memory = forecast(memory, now_s=float(now_s), rate=4.0, window_s=WINDOW_S, look_ahead_s=AHEAD_S)
        raised = raised or said.seasonal
    assert memory.raised_square > memory.plain_square
    assert not raised
    assert said.ahead_per_s == pytest.approx(4.0, rel=0.02)


def test_a_forecast_without_news_grows_less_sure() -> None:
    said, memory = followed(lambda s: 5.0 + s * 0.002, until_s=3600)
    soon = extended(memory, now_s=3630.0, look_ahead_s=AHEAD_S)
    later = extended(memory, now_s=3900.0, look_ahead_s=AHEAD_S)
    assert soon.sigma < later.sigma
    assert later.ahead_per_s > said.now_per_s


def test_more_traffic_never_lowers_the_forecast() -> None:
    _, memory = followed(lambda s: 10 + 3 * math.sin(s / 600), until_s=7200, seed=4)
    said = [
        forecast(memory, now_s=7215.0, rate=rate, window_s=WINDOW_S, look_ahead_s=AHEAD_S)[0]
        for rate in np.linspace(0, 60, 121)
    ]
    assert all(a.ahead_per_s <= b.ahead_per_s + 1e-9 for a, b in itertools.pairwise(said))
    assert len({one.sigma for one in said}) <= 2
