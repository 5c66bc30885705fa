from __future__ import annotations

import numpy as np
import pytest

from paceline.simulator.benchmark.interval import bootstrap, bootstrap_median
from paceline.simulator.benchmark.tuning import (
    Score,
    Trial,
    best,
    tune,
    walk,
)
from paceline.simulator.policies.knob import Knob, Settings

TARGET = Knob(name="target", ladder=tuple(float(n) for n in range(40, 0, -2)), default=41.0)
DELAY = Knob(name="delay", ladder=(0.0, 30.0, 60.0, 120.0, 300.0), default=300.0)


def _world(settings: Settings) -> Score:
    """More replicas with a smaller target and a longer delay; 0.99 is met from 20 on."""
    replicas = 200 / settings["target"] + settings["delay"] / 100
    return Score(attainment=min(1.0, 0.79 + 0.02 * replicas), gpu_hours=replicas)


def _evaluate(settings: Settings, cheapest: float | None) -> Score:
    return _world(settings)


def test_the_first_trial_is_the_policy_as_shipped() -> None:
    trials = tune([TARGET, DELAY], _evaluate, objective=0.99, trials=10, seed=1)
    assert trials[0].settings == {"target": 41.0, "delay": 300.0}
    assert len(trials) == 10


def test_forty_trials_come_near_the_best_of_the_whole_space() -> None:
    found = best(tune([TARGET, DELAY], _evaluate, objective=0.99, trials=40, seed=1), objective=0.99)
    every = [_world({"target": t, "delay": d}) for t in TARGET.ladder for d in DELAY.ladder]
    cheapest = min(score.gpu_hours for score in every if score.attainment >= 0.99)
    assert found.score.attainment >= 0.99
    assert found.score.gpu_hours <= 1.03 * cheapest


def test_no_setting_is_run_twice_and_a_small_space_is_searched_whole() -> None:
    seen: list[Settings] = []

    def evaluate(settings: Settings, cheapest: float | None) -> Score:
        seen.append(settings)
        return _world({"target": 10.0, **settings})

    trials = tune([DELAY], evaluate, objective=0.99, trials=40, seed=3)
    assert len(trials) == len(seen) == 5
    assert {trial.settings["delay"] for trial in trials} == set(DELAY.ladder)


def test_the_same_seed_gives_the_same_trials() -> None:
    runs = [tune([TARGET, DELAY], _evaluate, objective=0.99, trials=20, seed=7) for _ in range(2)]
    assert runs[0] == runs[1]


def test_where_nothing_holds_the_highest_attainment_wins() -> None:
    trials = [
        Trial(settings={}, score=Score(attainment=a, gpu_hours=g)) for a, g in [(0.5, 1), (0.9, 9), (0.8, 2)]
    ]
    assert best(trials, objective=0.99).score.attainment == 0.9
    assert best(trials, objective=0.75).score.gpu_hours == 2


@pytest.mark.parametrize(
    ("tuned", "holds_from", "asked"),
    [
        pytest.param(120.0, 60.0, [120.0, 60.0, 30.0], id="cheaper-as-long-as-it-holds"),
        pytest.param(30.0, 120.0, [30.0, 60.0, 120.0], id="dearer-until-it-holds"),
        pytest.param(100.0, 60.0, [100.0, 120.0, 60.0, 30.0], id="from-between-two-rungs"),
        pytest.param(300.0, 999.0, [300.0, 120.0, 60.0, 30.0], id="on-the-other-side-of-a-dead-end"),
        pytest.param(0.0, 0.0, [0.0], id="at-the-end-of-the-ladder"),
        pytest.param(0.0, 999.0, [0.0, 30.0, 60.0, 120.0], id="at-most-so-many"),
    ],
)
def test_a_walk_ends_where_the_objective_begins_to_hold(
    tuned: float, holds_from: float, asked: list[float]
) -> None:
    seen: list[float] = []

    def holds(value: float) -> bool:
        seen.append(value)
        return value >= holds_from

    walk(DELAY, tuned, holds, points=4)
    assert seen == asked


def test_a_trial_that_is_broken_off_changes_no_winner() -> None:
    """What costs more than a trial that held is worth nothing, however it would have ended."""
    told: list[float | None] = []

    def evaluate(settings: Settings, cheapest: float | None) -> Score:
        told.append(cheapest)
        score = _world(settings)
        beaten = cheapest is not None and score.gpu_hours > cheapest
        return Score(attainment=0.0, gpu_hours=score.gpu_hours) if beaten else score

    broken_off = tune([TARGET, DELAY], evaluate, objective=0.99, trials=40, seed=1)
    whole = tune([TARGET, DELAY], lambda settings, _: _world(settings), objective=0.99, trials=40, seed=1)
    assert [one.settings for one in broken_off] == [one.settings for one in whole]
    assert best(broken_off, objective=0.99) == best(whole, objective=0.99)
    assert told[0] is None
    assert min(one for one in told if one is not None) >= best(whole, objective=0.99).score.gpu_hours


def test_an_interval_of_equal_blocks_is_a_point_and_of_one_block_is_unknown() -> None:
    ratio = bootstrap([np.array([3.0, 4.0])] * 8, lambda row: row[0] / row[1], seed=0)
    assert (ratio.value, ratio.low, ratio.high) == (0.75, 0.75, 0.75)
    assert bootstrap([np.array([3.0, 4.0])], lambda row: row[0] / row[1], seed=0).low is None


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(5), 0
    for trial in range(200):
        blocks = [np.array([x, 1.0]) for x in random.normal(2.0, 0.5, size=24)]
        found = bootstrap(blocks, lambda row: row[0] / row[1], seed=trial, draws=300)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 2.0 <= found.high
    assert 160 <= covered <= 195


def test_the_median_cell_is_not_moved_by_one_wild_cell() -> None:
    cells = [[np.array([1.0, 2.0])] * 3, [np.array([1.0, 2.0])] * 3, [np.array([99.0, 2.0])] * 3]
    assert bootstrap_median(cells, lambda row: row[0] / row[1], seed=0).value == 0.5
