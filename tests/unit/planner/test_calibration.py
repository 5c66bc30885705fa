"""κ from a service's own measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paceline.planner import Figure, Group, Quantiles
from paceline.planner.calibration import LEAST, MOST, certainty, scales, updated
from paceline.planner.mix import Mix, points_of
from paceline.planner.performance import ReplicaModel
from paceline.planner.state import Calibration
from tests.unit.planner.looks import CHAT_OUTPUT, CHAT_PROMPT, TIMING, goal

RATE = 3.0


def model(scale: float) -> ReplicaModel:
    prompt, output = points_of(CHAT_PROMPT), points_of(CHAT_OUTPUT)
    assert prompt is not None
    assert output is not None
    mix = Mix(prompt=prompt, output=output, cached_share=0.0)
    return ReplicaModel(TIMING[2].corrected(scale=scale), mix=mix, goal=goal())


def measured(truth: float, *, noise: float = 1.0, by_request: bool = False) -> Group:
    """Two replicas whose steps take `truth` times the table's."""
    true = model(truth)
    batch = float(true.outlook(np.array([RATE]), replicas=np.array([2.0])).batch[0])
    gap_s, _ = true.gap_s(batch=batch, rate=RATE, by_request=by_request)
    mean = Quantiles(mean_s=Figure(value=gap_s * noise))
    return Group(
        tensor_parallel_size=2,
        ready=2,
        running=Figure(value=2 * batch),
        inter_token_latency=Quantiles() if by_request else mean,
        time_per_output_token=mean if by_request else Quantiles(),
    )


def learned(groups: list[Group], known: tuple[Calibration, ...] = ()) -> tuple[Calibration, ...]:
    for group in groups:
        scale = scales(known, TIMING)[2]
        known = updated(known, group=group, model=model(scale), rate_per_replica=RATE, passed_s=60.0)
    return known


@pytest.mark.parametrize("truth", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("by_request", [False, True])
def test_a_wrong_table_is_corrected(truth: float, by_request: bool) -> None:
    known = learned([measured(truth, by_request=by_request)] * 30)
    assert scales(known, TIMING)[2] == pytest.approx(truth, rel=0.03)


def test_certainty_grows_with_measurements_and_is_of_the_size_alone() -> None:
    few, many = learned([measured(1.1)] * 2), learned([measured(1.1)] * 60)
    assert 0 < certainty(few, 2) < certainty(many, 2) <= 1
    assert certainty(many, 4) == 0


def test_one_odd_figure_is_left_out() -> None:
    known = learned([measured(1.0)] * 30)
    before = scales(known, TIMING)[2]
    known = learned([measured(1.0, noise=3.0)], known)
    assert scales(known, TIMING)[2] == before
    assert known[0].outliers == 1


def test_a_lasting_shift_is_believed() -> None:
    known = learned([measured(1.0)] * 30)
    known = learned([measured(1.8)] * 30, known)
    assert scales(known, TIMING)[2] == pytest.approx(1.8, rel=0.05)


@pytest.mark.parametrize("noise", [20.0, 0.02])
def test_it_stays_within_its_bounds(noise: float) -> None:
    known = learned([measured(1.0, noise=noise)] * 100)
    assert LEAST - 0.01 <= scales(known, TIMING)[2] <= MOST + 0.01


def test_an_untried_size_is_slowed_with_the_others_but_never_credited() -> None:
    slow = learned([measured(1.4)] * 30)
    fast = learned([measured(0.7)] * 30)
    assert 1.1 < scales(slow, TIMING)[4] < 1.4
    assert scales(fast, TIMING)[4] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [None, math.nan, 0.0, -1.0])
def test_a_figure_that_is_none_teaches_nothing(value: float | None) -> None:
    group = Group(
        tensor_parallel_size=2,
        ready=2,
        running=Figure(value=20.0),
        inter_token_latency=Quantiles(mean_s=Figure(value=value)),
    )
    assert learned([group]) == ()
