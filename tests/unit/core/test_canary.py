"""An engine that computes something else is told from one that adds up in another order."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline_core.canary import MOST_DIFFERENCE, Canary, CanaryError

REFERENCE = Canary(of="a model", log_probabilities=(-0.5, -2.0, -7.25, -1.0))


def shifted(by: float) -> Canary:
    return Canary(of="a model", log_probabilities=tuple(one + by for one in REFERENCE.log_probabilities))


def test_hundredths_are_no_difference_and_whole_nats_are() -> None:
    assert shifted(0.05).differs_from(REFERENCE) is None
    assert "1.00 nats" in (shifted(-1.0).differs_from(REFERENCE) or "")


def test_an_engine_that_answers_nothing_known_differs() -> None:
    nothing = Canary(of="a model", log_probabilities=(math.nan,) * 4)
    assert nothing.differs_from(REFERENCE) is not None


@pytest.mark.parametrize(
    "other",
    [
        Canary(of="another model", log_probabilities=(-9.0,) * 4),
        Canary(of="a model", log_probabilities=(-9.0,) * 3),
    ],
)
def test_what_cannot_be_compared_does_not_differ(other: Canary) -> None:
    assert other.differs_from(REFERENCE) is None


@given(st.floats(-20, 20))
def test_the_limit_is_the_mean_difference(by: float) -> None:
    if abs(abs(by) - MOST_DIFFERENCE) > 1e-6:
        assert (shifted(by).differs_from(REFERENCE) is None) == (abs(by) < MOST_DIFFERENCE)


def test_json_there_and_back() -> None:
    assert Canary.parse(json.dumps(REFERENCE.to_json())) == REFERENCE


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"of": 1, "logProbabilities": []}', '{"of": "m", "logProbabilities": ["x"]}']
)
def test_what_is_no_canary_is_refused(text: str) -> None:
    with pytest.raises(CanaryError):
        Canary.parse(text)
