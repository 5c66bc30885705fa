"""The traffic is thinned, never stretched, its shift is where it says, and the same seed is the same traffic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2e.load.replay import SHORTEST_PROMPT_TOKENS
from e2e.replay.traffic import (
    MADE_UP,
    MOST_TOKENS_PER_S,
    Recipe,
    Shift,
    Source,
    Unplayable,
    busiest_minute_per_s,
    described,
    fingerprint,
    replay_of,
    streamed_per_s,
    text_of,
    traffic_of,
)
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.traffic_files import read_requests

RECIPE = Recipe(tokens_per_s=300.0)


def dense(*, per_s: float = 8.0, span_s: float = 3000.0, output: int = 150) -> Source:
    """Requests that can be told apart by their prompts, at even distances."""
    n = int(per_s * span_s)
    traffic = Traffic(
        arrival_s=np.arange(n) / per_s,
        prompt_tokens=np.arange(n) % 4000 + 1,
        output_tokens=np.full(n, output),
        end_s=span_s,
    )
    return Source(name="dense", traffic=traffic)


def test_requests_are_left_out_and_none_is_moved() -> None:
    source = dense()
    made = traffic_of(source, RECIPE)
    assert made.end_s == RECIPE.duration_s
    there = set(np.floor(source.traffic.arrival_s * 1000) / 1000)
    assert set(made.arrival_s) <= there
    assert streamed_per_s(made) == pytest.approx(300, rel=0.05)
    # As dense in each half: thinning is even.
    half = made.between(0, 1200)
    assert len(half) == pytest.approx(len(made) / 2, rel=0.1)


def test_the_shift_is_where_it_says_and_nowhere_else() -> None:
    shift = Shift(from_s=700, until_s=1300, share=0.3, least_prompt_tokens=7000, most_prompt_tokens=8000)
    made = traffic_of(dense(), replace(RECIPE, shift=shift))
    long = made.prompt_tokens >= 7000
    assert made.prompt_tokens.max() <= 8000
    assert made.arrival_s[long].min() >= 700
    assert made.arrival_s[long].max() < 1300
    assert long[(made.arrival_s >= 700) & (made.arrival_s < 1300)].mean() == pytest.approx(0.3, abs=0.05)
    assert "from second 700 to 1300, 30% of the prompts have 7000 to 8000 tokens" in described(
        dense(), made, replace(RECIPE, shift=shift)
    )


def test_a_seed_is_a_traffic() -> None:
    assert fingerprint(traffic_of(dense(), RECIPE)) == fingerprint(traffic_of(dense(), RECIPE))
    assert fingerprint(traffic_of(dense(), RECIPE)) != fingerprint(
        traffic_of(dense(), replace(RECIPE, seed=2))
    )


def test_what_is_written_is_what_is_played(tmp_path: Path) -> None:
    made = traffic_of(dense(), RECIPE)
    path = tmp_path / "made.csv"
    path.write_text(text_of(made))
    again = read_requests(path)
    assert fingerprint(again) == fingerprint(made)
    replay = replay_of(made)
    assert [one.at_s for one in replay.requests] == list(again.arrival_s)
    assert [one.prompt_tokens for one in replay.requests] == list(again.prompt_tokens)
    assert [one.output_tokens for one in replay.requests] == list(again.output_tokens)
    assert min(one.prompt_tokens for one in replay.requests) >= SHORTEST_PROMPT_TOKENS


@pytest.mark.parametrize(
    ("source", "recipe", "says"),
    [
        pytest.param(dense(span_s=1000), RECIPE, "1000 s long", id="too-short"),
        pytest.param(dense(per_s=1), RECIPE, "only thinned", id="too-thin"),
        pytest.param(
            dense(per_s=40),
            replace(RECIPE, tokens_per_s=2 * MOST_TOKENS_PER_S),
            "busiest minute",
            id="too-much",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(source: Source, recipe: Recipe, says: str) -> None:
    with pytest.raises(Unplayable, match=says):
        traffic_of(source, recipe)


def test_without_a_file_there_is_traffic_too() -> None:
    source = Source.of(None)
    made = traffic_of(source, Recipe())
    assert source.name == MADE_UP
    assert len(made) > 1000
    assert busiest_minute_per_s(made) < MOST_TOKENS_PER_S
