"""A prediction is about one traffic and one scene; the scene is the same for simulator and cluster."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.replay.prediction import (
    Held,
    NoPrediction,
    Prediction,
    is_committed,
    mean_gpus,
    sequence_of,
)
from e2e.replay.scene import SCENE
from e2e.replay.simulated import predict
from e2e.replay.traffic import MADE_UP, Recipe, Shift, Source, fingerprint, traffic_of
from tests.unit.replay.predicted import prediction


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    prediction().write(tmp_path)
    assert Prediction.read("dense", tmp_path) == prediction()


def test_nothing_is_compared_with_a_prediction_of_something_else(tmp_path: Path) -> None:
    prediction().check(fingerprint="abc", scene=SCENE)
    with pytest.raises(NoPrediction, match="the traffic is xyz"):
        prediction().check(fingerprint="xyz", scene=SCENE)
    with pytest.raises(NoPrediction, match="scene has changed"):
        prediction().check(fingerprint="abc", scene=replace(SCENE, ttft_ms=SCENE.ttft_ms + 1))
    with pytest.raises(NoPrediction, match=r"e2e\.replay predict"):
        Prediction.read("nothing", tmp_path)


def test_a_prediction_counts_once_it_is_committed_as_it_is(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=n", "-c", "user.email=e@e")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    prediction().write(tmp_path)
    git("commit", "--allow-empty", "-m", "first")
    assert not is_committed("dense", tmp_path)
    git("add", ".")
    git("commit", "-m", "second")
    assert is_committed("dense", tmp_path)
    prediction(gpus=9.0).write(tmp_path)
    assert not is_committed("dense", tmp_path)


def test_gpus_are_weighed_by_the_time_that_they_were_held_and_not_after_the_traffic() -> None:
    held = (
        Held(at_s=0.0, gpus=4),
        Held(at_s=10.0, gpus=1),
        Held(at_s=50.0, gpus=2),
        Held(at_s=120.0, gpus=8),
    )
    assert mean_gpus(held, until_s=100.0) == pytest.approx((10 * 4 + 40 * 1 + 50 * 2) / 100)


def test_a_size_is_named_once_for_as_long_as_it_lasts() -> None:
    assert sequence_of([1, 1, 2, 2, 2, 1]) == (1, 2, 1)
    assert sequence_of([]) == ()


def test_it_is_the_shift_of_the_mix_that_changes_the_size() -> None:
    source = Source.of(None)
    shifted = predict(source, Recipe(), SCENE, seed=1)
    steady = predict(source, Recipe(shift=Shift(share=0.0)), SCENE, seed=1)
    assert len(shifted.tensor_parallel_sizes) >= 3
    assert len(steady.tensor_parallel_sizes) == 1
    assert shifted.failed == 0


def test_what_is_committed_is_about_what_would_be_played() -> None:
    committed = Prediction.read(MADE_UP)
    committed.check(fingerprint=fingerprint(traffic_of(Source.of(None), committed.recipe)), scene=SCENE)
