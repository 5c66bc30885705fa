"""Quantiles and lengths from cumulative buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.metrics.histogram import lengths, quantile

BUCKETS = {0.1: 0.0, 0.2: 5.0, 0.4: 9.0, math.inf: 10.0}


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.25, 0.15, id="within a bucket"),
        pytest.param(0.5, 0.2, id="at an edge"),
        pytest.param(0.7, 0.3, id="within the next"),
        pytest.param(0.99, 0.4, id="above the highest edge"),
    ],
)
def test_a_quantile_lies_where_prometheus_puts_it(share: float, expected: float) -> None:
    assert quantile(share, BUCKETS) == pytest.approx(expected)


@pytest.mark.parametrize(
    "buckets",
    [
        pytest.param({}, id="nothing"),
        pytest.param({0.1: 0.0, math.inf: 0.0}, id="no entries"),
        pytest.param({0.1: 3.0, 0.2: 4.0}, id="without the unbounded bucket"),
        pytest.param({math.inf: 4.0}, id="no edge"),
        pytest.param({0.1: 3.0, math.inf: math.nan}, id="a NaN"),
    ],
)
def test_what_says_nothing_is_none(buckets: dict[float, float]) -> None:
    assert quantile(0.5, buckets) is None


def test_an_edge_that_only_some_replicas_have_takes_nothing_away() -> None:
    assert quantile(0.5, {0.1: 8.0, 0.15: 2.0, 0.2: 10.0, math.inf: 10.0}) == pytest.approx(0.0625)


def test_lengths_are_counts_of_the_window_with_the_exact_mean() -> None:
    found = lengths({64.0: 1.0, 128.0: 3.0, math.inf: 3.0}, mean_tokens=90.0, window_s=60.0)
    assert found is not None
    assert found.upper_tokens == (64.0, 128.0, math.inf)
    assert found.counts == (60.0, 120.0, 0.0)
    assert found.mean_tokens == 90.0


def test_lengths_of_nothing_are_none() -> None:
    assert lengths({64.0: 0.0, math.inf: 0.0}, mean_tokens=90.0, window_s=60.0) is None
    assert lengths({}, mean_tokens=90.0, window_s=60.0) is None


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 1000), st.floats(0, 1e6)), min_size=1, max_size=20),
    st.lists(st.floats(0.01, 0.999), min_size=2, max_size=5),
)
def test_quantiles_never_fall_and_never_leave_the_edges(
    found: list[tuple[float, float]], shares: list[float]
) -> None:
    buckets = dict(found) | {math.inf: max(count for _, count in found)}
    at = [quantile(share, buckets) for share in sorted(shares)]
    if buckets[math.inf] == 0:
        assert set(at) == {None}
        return
    values = [one for one in at if one is not None]
    assert len(values) == len(at)
    assert values == sorted(values)
    assert values[0] >= 0
    assert values[-1] <= max(edge for edge in buckets if edge != math.inf)
