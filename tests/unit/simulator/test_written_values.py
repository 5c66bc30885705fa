from __future__ import annotations

import pytest

from paceline.simulator.written_values import WrittenWrong, parse_duration_s, parse_sizes, parse_slo


@pytest.mark.parametrize(
    ("text", "seconds"), [("120s", 120), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("0s", 0)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration_s(text, option="--start-time") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["120", "s", "-1s", "1 day", "", "nan s"])
def test_another_duration_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(WrittenWrong, match=r"^--start-time: .* such as 120s"):
        parse_duration_s(text, option="--start-time")


def test_sizes_are_sorted_and_counted_once() -> None:
    assert parse_sizes("8, 2,2", option="--tp") == (2, 8)


@pytest.mark.parametrize("text", ["3", "0", "1,,2", "two", "-1", "16"])
def test_a_size_that_no_node_has_is_refused(text: str) -> None:
    with pytest.raises(WrittenWrong, match=r"^--tp: .*1,2,4,8"):
        parse_sizes(text, option="--tp")


def test_an_slo_is_two_targets_and_an_objective() -> None:
    slo = parse_slo("ttft=1s,tpot=50ms,objective=99.9", option="--slo")
    target = slo.targets.classify(100_000)
    assert (target.ttft_ms, target.tpot_ms) == (1000, 50)
    assert slo.objective == pytest.approx(0.999)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttft=1s,tpot=50ms", "objective missing"),
        ("ttft=1s", "tpot and objective missing"),
        ("ttft=1s,tpot=50ms,objective=100", "below 100"),
        ("ttft=1s,tpot=50ms,objective=high", "below 100"),
        ("ttft=1s,tpot=0.5ms,objective=99", "whole milliseconds"),
        ("ttft=1s,itl=50ms,objective=99", "'itl=50ms' is not understood"),
        ("ttft=1s,ttft=2s,tpot=50ms,objective=99", "'ttft=2s' is not understood"),
        ("ttft=soon,tpot=50ms,objective=99", "no duration"),
    ],
)
def test_another_slo_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(WrittenWrong, match=rf"^--slo: .*{message}"):
        parse_slo(text, option="--slo")
