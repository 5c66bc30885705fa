"""The error budget is what the objective allows minus what was missed, over the window, across restarts."""

from __future__ import annotations

import json

import pytest

from paceline.controller.error_budget import COARSE_PARTS, FINE_KEPT, ErrorBudget

DAY_S = 86_400.0
NOW_S = 1_795_334_400.0


def looked(
    *, share: float, hours: float, window_s: float = 28 * DAY_S, rate_per_s: float = 2.0
) -> ErrorBudget:
    budget = ErrorBudget(window_s=window_s)
    for number in range(int(hours * 240) + 1):
        budget.look(NOW_S + 15 * number, share=share, samples=60 * rate_per_s, over_s=60)
    return budget


def test_half_of_what_is_allowed_leaves_half() -> None:
    budget = looked(share=0.995, hours=2)
    assert budget.remaining(NOW_S + 7200, objective=0.99) == pytest.approx(0.5)
    assert [(one.window_seconds, one.value) for one in budget.burn_rates(NOW_S + 7200, objective=0.99)] == [
        (3600, "0.5"),
        (21600, "0.5"),
    ]


def test_more_than_is_allowed_is_negative() -> None:
    assert looked(share=0.97, hours=1).remaining(NOW_S + 3600, objective=0.99) == pytest.approx(-2.0)


def test_without_requests_nothing_is_known() -> None:
    budget = ErrorBudget(window_s=DAY_S)
    budget.look(NOW_S, share=None, samples=None, over_s=60)
    budget.look(NOW_S + 15, share=None, samples=0, over_s=60)
    assert budget.remaining(NOW_S + 15, objective=0.99) is None
    assert budget.burn_rates(NOW_S + 15, objective=0.99) == ()


def test_each_request_counts_once_though_the_windows_of_two_looks_overlap() -> None:
    budget = looked(share=1.0, hours=1, rate_per_s=2.0)
    _, counted = budget._coarse.sums(NOW_S + 3600, window_s=DAY_S)
    assert counted == pytest.approx(7200)


def test_a_look_after_a_long_gap_counts_its_own_window_only() -> None:
    budget = ErrorBudget(window_s=DAY_S)
    budget.look(NOW_S, share=1.0, samples=120, over_s=60)
    budget.look(NOW_S + 3600, share=1.0, samples=120, over_s=60)
    assert budget._fine.sums(NOW_S + 3600, window_s=3600)[1] == pytest.approx(120)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    budget = looked(share=0.0, hours=1, window_s=3600 * 2)
    later_s = NOW_S + 3600 * 4
    for number in range(240):
        budget.look(later_s + 15 * number, share=1.0, samples=120, over_s=60)
    assert budget.remaining(later_s + 3600, objective=0.99) == pytest.approx(1.0)


def test_a_new_process_goes_on_and_another_window_begins_anew() -> None:
    budget = looked(share=0.995, hours=2)
    text = json.dumps(budget.plain())
    again = ErrorBudget(window_s=28 * DAY_S)
    again.restore(json.loads(text))
    assert again.remaining(NOW_S + 7200, objective=0.99) == pytest.approx(0.5, abs=0.01)
    other = ErrorBudget(window_s=7 * DAY_S)
    other.restore(json.loads(text))
    assert other.remaining(NOW_S + 7200, objective=0.99) is None


def test_what_is_kept_is_bounded() -> None:
    budget = ErrorBudget(window_s=DAY_S)
    for number in range(3000):
        budget.look(NOW_S + 300 * number, share=0.99, samples=1e6, over_s=60)
    plain = budget.plain()
    assert len(plain["fine"]) <= FINE_KEPT
    assert len(plain["coarse"]) <= COARSE_PARTS + 1
    assert len(json.dumps(plain)) < 8192
