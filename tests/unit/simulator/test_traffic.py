from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paceline.simulator.core.generators import GENERATORS, conversation, generate
from paceline.simulator.core.traffic import Pairs
from paceline.simulator.core.traffic_files import UnreadableTraffic, read_rate, read_requests

PAIRS = Pairs(prompt_tokens=np.array([100, 2000]), output_tokens=np.array([10, 300]))


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "traffic.csv"
    path.write_text(text)
    return path


def test_requests_are_read_in_order_of_arrival(tmp_path: Path) -> None:
    found = read_requests(
        _written(tmp_path, "arrival_s,prompt_tokens,output_tokens\n2.5,300,20\n0.5,100,0\n")
    )
    assert found.arrival_s.tolist() == [0.5, 2.5]
    assert found.prompt_tokens.tolist() == [100, 300]
    assert found.output_tokens.tolist() == [1, 20]
    assert found.end_s == 3.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column arrival_s and prompt_tokens and output_tokens"),
        ("arrival_s,prompt_tokens,output_tokens\n", "no rows"),
        (
            "arrival_s,prompt_tokens,output_tokens\n1,many,2\n",
            "line 2, column prompt_tokens: many: write a number",
        ),
        (
            "arrival_s,prompt_tokens,output_tokens\n1,2\n",
            "line 2, column output_tokens: nothing: write a number",
        ),
        ("arrival_s,prompt_tokens,output_tokens\n-1,2,3\n", "line 2, column arrival_s: -1: write a finite"),
        ("arrival_s,prompt_tokens,output_tokens\nnan,2,3\n", "line 2, column arrival_s: nan: write a finite"),
    ],
)
def test_a_file_that_is_no_traffic_is_named_with_what_to_write(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UnreadableTraffic, match=rf"traffic.csv.*{message}"):
        read_requests(_written(tmp_path, text))


def test_a_rate_is_a_line_between_its_steps(tmp_path: Path) -> None:
    path = _written(tmp_path, "t_s,requests_per_s\n0,0\n3600,20\n7200,20\n")
    found = read_rate(path).arrivals(PAIRS, seed=1)
    assert found.end_s == 10800
    counts = np.bincount((found.arrival_s // 900).astype(int))
    expected = np.array([2.5, 7.5, 12.5, 17.5, *[20] * 8]) * 900
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    assert set(found.prompt_tokens.tolist()) == {100, 2000}
    assert np.all((found.prompt_tokens == 100) == (found.output_tokens == 10))


def test_noise_widens_the_counts_of_minutes_and_keeps_their_mean(tmp_path: Path) -> None:
    path = _written(tmp_path, "t_s,requests_per_s\n0,20\n36000,20\n")
    counts = [
        np.bincount((rate.arrivals(PAIRS, seed=1).arrival_s // 60).astype(int), minlength=1200)
        for rate in (read_rate(path), read_rate(path).noisy(4.0, seed=1))
    ]
    assert [each.mean() for each in counts] == pytest.approx([1200, 1200], rel=0.02)
    assert counts[0].std() == pytest.approx(1200**0.5, rel=0.1)
    # Between two minutes the rate is a line, so a minute's count averages over its two ends.
    assert 2.0 * 1200**0.5 < counts[1].std() < 4.5 * 1200**0.5


def test_a_window_of_a_rate_is_that_part_of_the_line(tmp_path: Path) -> None:
    rate = read_rate(_written(tmp_path, "t_s,requests_per_s\n100,0\n3700,20\n7300,20\n")).between(1800, 5400)
    assert rate.at_s.tolist() == [0, 1800, 3600]
    assert rate.requests_per_s.tolist() == [10, 20, 20]


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_a_generator_repeats_itself_by_seed_alone(name: str) -> None:
    one, same, other = (generate(name, {"hours": 1.0}, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.arrival_s, same.arrival_s)
    assert np.array_equal(one.prompt_tokens, same.prompt_tokens)
    assert len(one) != len(other) or not np.array_equal(one.arrival_s, other.arrival_s)
    assert np.all(np.diff(one.arrival_s) >= 0)
    assert one.arrival_s[-1] < one.end_s == 3600


def test_a_mix_shift_is_short_for_three_quarters() -> None:
    found = generate("mix-shift", {"hours": 4.0, "rate": 10.0, "phases": 4.0}, seed=0)
    is_long = found.prompt_tokens >= 6000
    late = found.arrival_s % 3600 >= 2700
    assert not is_long[~late].any()
    assert is_long[late].mean() == pytest.approx(0.2, abs=0.02)


def test_a_burst_is_three_times_the_rate() -> None:
    found = generate("burst", {"hours": 1.0, "rate": 20.0}, seed=0)
    inside = (found.arrival_s > 1560) & (found.arrival_s < 2460)
    assert inside.sum() / 900 == pytest.approx(60, rel=0.05)


def test_thinning_keeps_the_shape_and_the_time() -> None:
    full = generate("ramp", {"hours": 2.0, "low": 10.0, "high": 40.0}, seed=0)
    thin = full.thinned(0.25, seed=3)
    assert thin.end_s == full.end_s
    assert len(thin) / len(full) == pytest.approx(0.25, rel=0.03)
    early, thin_early = (full.arrival_s < 2000).mean(), (thin.arrival_s < 2000).mean()
    assert thin_early == pytest.approx(early, abs=0.02)


def test_the_conversation_mix_has_as_many_documents_as_asked() -> None:
    assert (conversation(long_share=0.2).prompt_tokens >= 6000).mean() == pytest.approx(0.2, abs=0.01)
