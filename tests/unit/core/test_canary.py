"""An engine that computes something else is told from one that adds up in another order, and one that is slow from one
that is not."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline_core.canary import MOST_DIFFERENCE, Canary, CanaryError, Reference, Speed

MARGIN = 0.5
SERVED = Canary(
    of="a model",
    log_probabilities=(-0.5, -2.0, -7.25, -1.0),
    speed=Speed(tensor_parallel_size=1, token_s=0.02),
)
REFERENCE = Reference(canary=SERVED, expected_token_s={1: 0.02, 2: 0.012}, margin=MARGIN)


def shifted(by: float) -> Canary:
    return Canary(of="a model", log_probabilities=tuple(one + by for one in SERVED.log_probabilities))


def at_speed(token_s: float, *, size: int = 2, of: str = "a model") -> Canary:
    return Canary(
        of=of,
        log_probabilities=SERVED.log_probabilities,
        speed=Speed(tensor_parallel_size=size, token_s=token_s),
    )


def test_hundredths_are_no_difference_and_whole_nats_are() -> None:
    assert REFERENCE.objection_to(shifted(0.05)) is None
    assert "1.00 nats" in (REFERENCE.objection_to(shifted(-1.0)) or "")


def test_an_engine_that_answers_nothing_known_differs() -> None:
    nothing = Canary(of="a model", log_probabilities=(math.nan,) * 4)
    assert REFERENCE.objection_to(nothing) is not None


@pytest.mark.parametrize(
    "other",
    [
        Canary(of="another model", log_probabilities=(-9.0,) * 4),
        Canary(of="a model", log_probabilities=(-9.0,) * 3),
        at_speed(1.0, of="another model"),
        at_speed(1.0, size=8),
    ],
)
def test_what_cannot_be_compared_is_not_objected_to(other: Canary) -> None:
    assert REFERENCE.objection_to(other) is None


@given(st.floats(-20, 20))
def test_the_limit_is_the_mean_difference(by: float) -> None:
    if abs(abs(by) - MOST_DIFFERENCE) > 1e-6:
        assert (REFERENCE.objection_to(shifted(by)) is None) == (abs(by) < MOST_DIFFERENCE)


@given(st.floats(1e-4, 1.0), st.sampled_from([1, 2]))
def test_the_limit_is_what_is_expected_of_its_size_and_the_margin(token_s: float, size: int) -> None:
    limit_s = REFERENCE.expected_token_s[size] * (1 + MARGIN)
    if abs(token_s - limit_s) > 1e-9:
        assert (REFERENCE.objection_to(at_speed(token_s, size=size)) is None) == (token_s < limit_s)


def test_a_slow_one_is_told_what_was_expected() -> None:
    said = REFERENCE.objection_to(at_speed(0.06)) or ""
    assert "takes 60.0 ms at tensor-parallel size 2, and 12.0 ms are expected (50 % more allowed)" in said


@pytest.mark.parametrize("canary", [SERVED, shifted(0.0)])
def test_json_there_and_back(canary: Canary) -> None:
    assert Canary.from_json(json.loads(json.dumps(canary.to_json()))) == canary
    reference = Reference(canary=canary, expected_token_s={4: 0.01}, margin=0.25)
    assert Reference.parse(json.dumps(reference.to_json())) == reference


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"of": 1, "logProbabilities": []}',
        '{"of": "m", "logProbabilities": ["x"]}',
        '{"of": "m", "logProbabilities": [-1], "speed": {"tensorParallelSize": "1"}}',
        '{"of": "m", "logProbabilities": [-1], "speed": 3}',
    ],
)
def test_what_is_no_canary_is_refused(text: str) -> None:
    with pytest.raises(CanaryError):
        Canary.from_json(json.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps(SERVED.to_json()),
        json.dumps(SERVED.to_json() | {"expectedSecondsPerToken": {"x": 1.0}, "latencyMarginPercent": 50}),
        json.dumps(SERVED.to_json() | {"expectedSecondsPerToken": {"1": 1.0}}),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(CanaryError):
        Reference.parse(text)
