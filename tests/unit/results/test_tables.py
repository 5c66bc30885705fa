"""The tables show what the scenarios wrote: the last of each, the sum of a campaign, and nothing that nobody saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e import results
from e2e.results.tables import markdown, p99_ms


def row(text: str, first: str) -> list[str]:
    """The cells of the row that begins with that one, without when it was seen."""
    (found,) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return found.strip("| ").split(" | ")[:-1]


def transition(folder: Path, **figures: Any) -> None:
    line = {
        "kind": "replica up",
        "requests": 100,
        "failed": 0,
        "attained": 100,
        "long": 10,
        "streams_moving": 20,
        "ttft_ms_at_rest": {"100": 100},
        "ttft_ms_meanwhile": {"100": 100},
    }
    results.append("transitions", scenario="test", folder=folder, **{**line, **figures})


def kill(folder: Path, **figures: Any) -> None:
    line = {"kind": "TP by surge", "requests": 50, "failed": 0, "same_end": True, "second_transitions": 0}
    results.append("kills", scenario="test", folder=folder, **{**line, **figures})


def test_what_was_written_is_read_back_with_its_commit(tmp_path: Path) -> None:
    assert results.lines("faults", folder=tmp_path) == []
    results.append("faults", scenario="test_one", folder=tmp_path, failed=0)
    results.append("faults", scenario="test_two", folder=tmp_path, failed=1)
    first, second = results.lines("faults", folder=tmp_path)
    assert (first["scenario"], first["failed"], second["failed"]) == ("test_one", 0, 1)
    assert first["commit"] == results.commit()


def test_nothing_seen_is_no_table(tmp_path: Path) -> None:
    assert markdown(tmp_path) == ""


def test_a_scenario_that_ran_twice_shows_its_last_run_and_what_it_did_not_tell_is_unknown(
    tmp_path: Path,
) -> None:
    name = "test_x[scale-1-3-1]"
    results.append("lossless", scenario=name, folder=tmp_path, requests=9, failed=9, operator_kills=9)
    results.append("lossless", scenario=name, folder=tmp_path, requests=500, failed=0)
    assert row(markdown(tmp_path), "scale 1 → 3 → 1") == ["scale 1 → 3 → 1", "500", "0", "-"]


def test_a_campaign_of_transitions_is_summed_by_kind(tmp_path: Path) -> None:
    transition(tmp_path, streams_moving=31)
    transition(tmp_path, failed=2, attained=96, ttft_ms_meanwhile={"100": 98, "300": 2})
    transition(tmp_path, kind="roll-back")
    text = markdown(tmp_path)
    assert row(text, "replica up") == ["replica up", "2", "200", "2", "20", "20", "100", "300", "98.0"]
    assert row(text, "roll-back")[1] == "1"


def test_a_campaign_of_kills_has_a_row_for_each_step_and_counts_a_transition_once_in_all(
    tmp_path: Path,
) -> None:
    kill(tmp_path, kills=["Asked", "Starting"])
    kill(tmp_path, kills=["Starting"], same_end=False, second_transitions=1)
    kill(tmp_path, kills=[], end=["how it ends when nobody dies"])
    text = markdown(tmp_path)
    assert row(text, "TP by surge | Asked") == ["TP by surge", "Asked", "1", "1", "50", "0", "0", "0"]
    assert row(text, "TP by surge | Starting") == ["TP by surge", "Starting", "2", "2", "100", "0", "1", "1"]
    assert row(text, "all") == ["all", "", "3", "2", "100", "0", "1", "1"]


def test_p99_is_of_all_that_was_counted_and_unknown_of_nothing() -> None:
    assert p99_ms([{"ttft": {"5": 99, "900": 1}}], "ttft") == 900
    assert p99_ms([{"ttft": {"5": 99}}, {"ttft": {"5": 100, "900": 1}}], "ttft") == 5
    assert p99_ms([{"ttft": {}}], "ttft") is None
