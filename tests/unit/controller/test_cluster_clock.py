"""Time goes on as the API server tells it, whatever the machine's own clock does."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from paceline.controller.cluster_clock import ClusterClock

NOW_S = 1_790_000_000


class Times:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s, self.monotonic_s = float(NOW_S), 100.0
        monkeypatch.setattr(time, "time", lambda: self.wall_s)
        monkeypatch.setattr(time, "monotonic", lambda: self.monotonic_s)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


def date(at_s: float) -> str:
    return formatdate(at_s, usegmt=True)


def test_before_the_first_answer_it_is_the_machines(times: Times) -> None:
    assert ClusterClock().now_s() == times.wall_s


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_jump_of_the_machines_clock_is_not_seen(times: Times, jump_s: int) -> None:
    clock = ClusterClock()
    clock.hear(date(NOW_S))
    times.wall_s += jump_s
    times.monotonic_s += 5
    assert clock.now_s() == NOW_S + 5


def test_of_answers_that_say_whole_seconds_the_latest_is_the_nearest(times: Times) -> None:
    clock = ClusterClock()
    for passed_s in (0.9, 1.0, 1.9, 2.5):
        times.monotonic_s = 100 + passed_s
        clock.hear(date(int(NOW_S + passed_s)))
    assert clock.now_s() == pytest.approx(NOW_S + 2.5)


@pytest.mark.parametrize("set_by_s", [600, -600])
def test_a_clock_of_the_api_server_that_was_set_is_followed(times: Times, set_by_s: int) -> None:
    clock = ClusterClock()
    clock.hear(date(NOW_S))
    clock.hear(date(NOW_S + set_by_s))
    assert clock.now_s() == NOW_S + set_by_s


@pytest.mark.parametrize("said", [None, "", "yesterday"])
def test_an_answer_without_a_time_changes_nothing(times: Times, said: str | None) -> None:
    clock = ClusterClock()
    clock.hear(date(NOW_S))
    clock.hear(said)
    assert clock.now_s() == NOW_S
