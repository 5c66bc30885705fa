"""A run can be drawn, whatever of it is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.replay.played import Answered, Look, Played
from e2e.replay.plot import draw
from paceline_core.latency import Outcome
from tests.unit.replay.predicted import prediction

GOOD = Answered(
    arrival_s=1.0, prompt_tokens=100, output_tokens=9, ttft_s=0.2, tpot_s=0.02, outcome=Outcome.GOOD
)
LOST = Answered(
    arrival_s=50.0,
    prompt_tokens=100,
    output_tokens=9,
    ttft_s=None,
    tpot_s=None,
    outcome=Outcome.FAILED,
    failure="never sent",
)
LOOKS = [
    Look(at_s=0.3, tensor_parallel_size=1, replicas=2, gpus=2, ready={1: 2}),
    Look(at_s=60.0, tensor_parallel_size=2, replicas=1, gpus=4, ready={}),
]


@pytest.mark.parametrize(
    ("answers", "looks"),
    [
        pytest.param([GOOD, LOST], LOOKS, id="some-unknown"),
        pytest.param([LOST], LOOKS[:1], id="all-lost"),
    ],
)
def test_a_picture(tmp_path: Path, answers: list[Answered], looks: list[Look]) -> None:
    path = tmp_path / "docs" / "run.png"
    draw(
        path,
        played=Played(source="dense", duration_s=95.0, answers=answers, looks=looks),
        prediction=prediction(),
    )
    assert path.read_bytes().startswith(b"\x89PNG")
