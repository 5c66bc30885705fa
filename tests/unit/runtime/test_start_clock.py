"""The stages of a start add up to the whole, and one that is not known is not reported."""

from __future__ import annotations

import pytest

from paceline_runtime.launch.start_clock import StartClock

LOADED = "(Worker pid=7) INFO [default_loader.py:501] Loading weights took 2.50 seconds"


class Script:
    """A start that takes the given seconds between its marks."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.clock = StartClock(clock=lambda: self.now_s)

    def later(self, seconds: float) -> StartClock:
        self.now_s += seconds
        return self.clock


def start(*, log: str) -> StartClock:
    script = Script()
    script.later(3).spawned()
    script.later(20).read(log)
    script.later(7).answers()
    script.later(1).warm()
    return script.clock


def test_the_stages_are_contiguous() -> None:
    stages = start(log=LOADED).stages()
    assert stages == pytest.approx(
        {"fetch": 3, "import": 17.5, "weights": 2.5, "compile": 7, "warmup": 1, "ready": 31}
    )
    assert sum(seconds for stage, seconds in stages.items() if stage != "ready") == pytest.approx(
        stages["ready"]
    )


def test_without_the_line_in_the_log_the_stages_around_it_are_unknown() -> None:
    assert start(log="something else").stages() == pytest.approx({"fetch": 3, "warmup": 1, "ready": 31})


def test_with_several_ranks_the_last_to_load_counts() -> None:
    script = Script()
    script.later(0).spawned()
    script.later(10).read(LOADED)
    script.later(5).read(LOADED)
    script.later(1).answers()
    script.later(1).warm()
    assert script.clock.stages()["compile"] == pytest.approx(1)


def test_a_failure_is_placed_in_its_stage() -> None:
    script = Script()
    seen = [script.clock.stage]
    script.later(1).spawned()
    seen.append(script.clock.stage)
    script.later(1).read(LOADED)
    seen.append(script.clock.stage)
    script.later(1).answers()
    seen.append(script.clock.stage)
    script.later(1).warm()
    seen.append(script.clock.stage)
    assert seen == ["fetch", "import", "compile", "warmup", "serving"]
