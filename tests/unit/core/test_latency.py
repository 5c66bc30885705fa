"""What counts as a good request: each edge of the definition, and targets.json there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline_core import LatencyTarget, Outcome, Targets, TargetsError, judge_status


def target(**changes: Any) -> LatencyTarget:
    fields: dict[str, Any] = {
        "name": "all",
        "max_prompt_tokens": None,
        "ttft_ms": 500,
        "ttft_per_thousand_prompt_tokens_ms": 0,
        "tpot_ms": 40,
    }
    return LatencyTarget(**(fields | changes))


SHORT = target(name="short", max_prompt_tokens=8192)
LONG = target(name="long", ttft_per_thousand_prompt_tokens_ms=80)
TWO = Targets(classes=(SHORT, LONG))


@pytest.mark.parametrize(
    ("prompt_tokens", "name"), [(0, "short"), (1, "short"), (8192, "short"), (8193, "long"), (10**6, "long")]
)
def test_a_prompt_belongs_to_the_first_class_that_takes_it(prompt_tokens: int, name: str) -> None:
    assert TWO.classify(prompt_tokens).name == name


def test_a_target_grows_with_the_prompt_in_proportion() -> None:
    assert LONG.ttft_target_s(0) == 0.5
    assert LONG.ttft_target_s(10_500) == pytest.approx(0.5 + 0.84)


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "output_tokens", "outcome"),
    [
        pytest.param(0.5, 0.040, 10, Outcome.GOOD, id="exactly-at-both-targets"),
        pytest.param(0.501, 0.040, 10, Outcome.LATE_TTFT, id="first-token-late"),
        pytest.param(0.5, 0.041, 10, Outcome.LATE_TPOT, id="tokens-late"),
        pytest.param(0.501, 0.041, 10, Outcome.LATE_BOTH, id="both-late"),
        pytest.param(0.5, None, 1, Outcome.GOOD, id="one-token-has-no-tpot"),
        pytest.param(0.5, 9.0, 1, Outcome.GOOD, id="one-token-tpot-is-not-judged"),
        pytest.param(0.501, None, 0, Outcome.LATE_TTFT, id="no-token-late"),
    ],
)
def test_a_stream_is_judged_by_its_first_token_and_its_mean_gap(
    ttft_s: float, tpot_s: float | None, output_tokens: int, outcome: Outcome
) -> None:
    judged = target().judge_streamed(
        prompt_tokens=10, output_tokens=output_tokens, ttft_s=ttft_s, tpot_s=tpot_s
    )
    assert judged is outcome


@pytest.mark.parametrize(
    ("end_to_end_s", "output_tokens", "good"),
    [(0.5, 1, True), (0.51, 1, False), (0.5, 0, True), (0.5 + 9 * 0.04, 10, True), (0.9, 10, False)],
)
def test_an_answer_in_one_piece_may_take_as_long_as_both_targets_together(
    end_to_end_s: float, output_tokens: int, good: bool
) -> None:
    outcome = target().judge_whole(prompt_tokens=10, output_tokens=output_tokens, end_to_end_s=end_to_end_s)
    assert (outcome is Outcome.GOOD) is good


@pytest.mark.parametrize(
    ("elapsed_s", "first_token_seen", "outcome"),
    [
        (0.5, False, Outcome.ABORTED_EARLY),
        (0.51, False, Outcome.ABORTED_LATE),
        (0.1, True, Outcome.ABORTED_LATE),
    ],
)
def test_a_client_that_leaves_before_a_token_was_due_is_no_miss(
    elapsed_s: float, first_token_seen: bool, outcome: Outcome
) -> None:
    judged = target().judge_aborted(prompt_tokens=10, elapsed_s=elapsed_s, first_token_seen=first_token_seen)
    assert judged is outcome


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, Outcome.CLIENT_ERROR) for status in (400, 401, 403, 404, 413, 422)),
        (408, Outcome.FAILED),
        (429, Outcome.REJECTED),
        *((status, Outcome.FAILED) for status in (302, 405, 500, 502, 503, 504)),
        (200, None),
        (204, None),
    ],
)
def test_a_status_alone_decides_what_is_not_2xx(status: int, outcome: Outcome | None) -> None:
    assert judge_status(status) is outcome


def test_the_denominator_leaves_out_the_client_s_own_faults_and_early_aborts_alone() -> None:
    assert {one for one in Outcome if not one.counts} == {Outcome.CLIENT_ERROR, Outcome.ABORTED_EARLY}


def test_the_names_of_outcomes_are_a_contract() -> None:
    assert [one.value for one in Outcome] == [
        "good",
        "late_ttft",
        "late_tpot",
        "late_both",
        "failed",
        "rejected",
        "aborted_early",
        "aborted_late",
        "client_error",
    ]


def test_edges_stand_at_each_target_and_at_both_ends_of_one_that_grows() -> None:
    assert TWO.ttft_edges_s(max_prompt_tokens=32_000) == pytest.approx(
        (0.5, 0.5 + 0.08 * 8.193, 0.5 + 0.08 * 32)
    )
    assert TWO.ttft_edges_s(max_prompt_tokens=4_000) == (0.5,)
    assert TWO.tpot_edges_s() == (0.04,)


def test_the_text_of_targets_json_is_a_contract() -> None:
    assert json.loads(TWO.to_json())["latencyClasses"][0] == {
        "name": "short",
        "maxPromptTokens": 8192,
        "timeToFirstTokenMilliseconds": 500,
        "timeToFirstTokenPerThousandPromptTokensMilliseconds": 0,
        "timePerOutputTokenMilliseconds": 40,
    }


@st.composite
def targets(draw: st.DrawFn) -> Targets:
    bounds: list[int | None] = sorted(draw(st.sets(st.integers(1, 10**6), max_size=4)))  # type: ignore[assignment]
    return Targets(
        classes=tuple(
            target(
                name=f"class-{index}",
                max_prompt_tokens=bound,
                ttft_ms=draw(st.integers(1, 10**6)),
                ttft_per_thousand_prompt_tokens_ms=draw(st.integers(0, 10**4)),
                tpot_ms=draw(st.integers(1, 10**5)),
            )
            for index, bound in enumerate([*bounds, None])
        )
    )


@given(targets())
def test_targets_come_back_from_their_json_as_they_were(some: Targets) -> None:
    assert Targets.from_json(some.to_json()) == some


@given(targets(), st.integers(0, 2 * 10**6))
def test_every_prompt_has_exactly_one_class_and_no_earlier_one_takes_it(some: Targets, tokens: int) -> None:
    found = some.classify(tokens)
    assert found.takes(tokens)
    earlier = some.classes[: some.classes.index(found)]
    assert not any(one.takes(tokens) for one in earlier)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "write an object"),
        ('{"latencyClasses": []}', "write at least one class"),
        ('{"latencyClasses": [1]}', r"latencyClasses\[0\]: write an object"),
        ('{"latencyClasses": [{"name": ""}]}', r"latencyClasses\[0\]\.name: write a name"),
        ('{"latencyClasses": [{"name": "a"}]}', r"\[0\]\.timeToFirstTokenMilliseconds: write a whole number"),
        (
            '{"latencyClasses": [{"name": "a", "timeToFirstTokenMilliseconds": 1.5, "timePerOutputTokenMilliseconds": 1}]}',
            r"\[0\]\.timeToFirstTokenMilliseconds: write a whole number",
        ),
        (
            '{"latencyClasses": [{"name": "a", "timeToFirstTokenMilliseconds": true, "timePerOutputTokenMilliseconds": 1}]}',
            r"\[0\]\.timeToFirstTokenMilliseconds: write a whole number",
        ),
    ],
)
def test_targets_that_cannot_be_read_name_the_key(text: str, message: str) -> None:
    with pytest.raises(TargetsError, match=message):
        Targets.from_json(text)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((SHORT,), "the last class is bounded"),
        ((LONG, target(name="b")), "ascending maxPromptTokens in every class but the last"),
        ((SHORT, target(name="b", max_prompt_tokens=10), LONG), "ascending maxPromptTokens"),
        ((SHORT, target(name="b", max_prompt_tokens=8192), LONG), "ascending maxPromptTokens"),
        ((SHORT, target(name="short")), "write distinct names"),
    ],
)
def test_classes_that_leave_a_gap_or_overlap_are_refused(
    classes: tuple[LatencyTarget, ...], message: str
) -> None:
    with pytest.raises(TargetsError, match=message):
        Targets(classes=classes)
