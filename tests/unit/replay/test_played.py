"""A run is judged as the service judges it, and what is written of it is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.load import Record
from e2e.replay.played import Look, Played, judged
from paceline.simulator.core.traffic import Traffic
from paceline_core.latency import LatencyTarget, Outcome, Targets

TARGETS = Targets(
    classes=(
        LatencyTarget(
            name="all", max_prompt_tokens=None, ttft_ms=500, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=50
        ),
    )
)


def record(index: int, **seen: Any) -> Record:
    """A whole answer of 11 tokens, in time, but for what is told."""
    made = {
        "started_s": 10.0,
        "first_token_s": 10.4,
        "last_token_s": 10.8,
        "ended_s": 10.9,
        "status": 200,
        "output_tokens": 11,
        "finish_reason": "length",
    }
    return Record(index=index, scheduled_s=10.0, stream=True, max_tokens=11, **{**made, **seen})


def traffic(n: int, *, output: int = 11) -> Traffic:
    return Traffic(
        arrival_s=np.arange(n, dtype=float),
        prompt_tokens=np.full(n, 100),
        output_tokens=np.full(n, output),
        end_s=float(n),
    )


@pytest.mark.parametrize(
    ("seen", "outcome", "fails"),
    [
        pytest.param({}, Outcome.GOOD, False, id="in-time"),
        pytest.param({"first_token_s": 10.6}, Outcome.LATE_TTFT, False, id="first-token-late"),
        pytest.param({"last_token_s": 11.0}, Outcome.LATE_TPOT, False, id="tokens-late"),
        pytest.param({"failure": "status 503: x", "status": 503}, Outcome.FAILED, True, id="503"),
        pytest.param({"failure": "status 429: x", "status": 429}, Outcome.REJECTED, True, id="429"),
        pytest.param({"failure": "status 400: x", "status": 400}, Outcome.CLIENT_ERROR, True, id="400"),
        pytest.param({"failure": "connection lost: x"}, Outcome.FAILED, True, id="cut-after-200"),
        pytest.param({"failure": "not connected: x", "status": None}, Outcome.FAILED, True, id="no-answer"),
        pytest.param({"first_token_s": None}, Outcome.FAILED, True, id="no-token"),
        pytest.param({"output_tokens": 10}, Outcome.FAILED, True, id="a-token-less"),
    ],
)
def test_a_request_is_good_or_a_miss_or_failed(seen: dict[str, Any], outcome: Outcome, fails: bool) -> None:
    (answer,) = judged([record(0, **seen)], traffic(1), TARGETS)
    assert (answer.outcome, bool(answer.failure)) == (outcome, fails)


def test_what_was_never_sent_is_a_miss_and_has_failed() -> None:
    played = run(judged([record(0)], traffic(2), TARGETS))
    assert played.failed == 1
    assert played.attainment == 0.5


def test_its_own_fault_is_not_in_the_denominator_and_has_failed_all_the_same() -> None:
    answers = judged([record(0), record(1, failure="status 413: x", status=413)], traffic(2), TARGETS)
    assert run(answers).attainment == 1.0
    assert run(answers).failed == 1


def look(at_s: float, size: int, gpus: int) -> Look:
    return Look(at_s=at_s, tensor_parallel_size=size, replicas=1, gpus=gpus, ready={size: 1})


def run(answers: Any = (), looks: Any = (), duration_s: float = 100.0) -> Played:
    return Played(source="dense", duration_s=duration_s, answers=answers, looks=looks)


def test_gpus_are_weighed_by_the_time_that_they_were_held() -> None:
    played = run(looks=[look(2, 1, 1), look(40, 2, 3), look(60, 2, 2)])
    assert played.gpus == pytest.approx((40 * 1 + 20 * 3 + 40 * 2) / 100)


def test_sizes_are_a_sequence_of_changes() -> None:
    played = run(looks=[look(0, 1, 1), look(5, 1, 1), look(10, 2, 3), look(15, 2, 2), look(20, 1, 3)])
    assert played.tensor_parallel_sizes == (1, 2, 1)
    assert [(one.at_s, one.before, one.after) for one in played.size_changes] == [(10, 1, 2), (20, 2, 1)]


def test_a_run_that_was_written_is_read_back(tmp_path: Path) -> None:
    records = [record(0), record(1, failure='status 503: "busy", later', status=503, first_token_s=None)]
    played = run(judged(records, traffic(3), TARGETS), [look(0.5, 1, 1), look(5.5, 2, 3)])
    played.write(tmp_path / "run")
    assert Played.read(tmp_path / "run") == played
