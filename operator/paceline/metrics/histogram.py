"""What cumulative buckets say: quantiles, and counts of lengths.

One implementation for Prometheus' answers and for the pods' own pages; a test holds it against Prometheus'
`histogram_quantile`, whose rules these are: linear within a bucket, the lowest bucket begins at 0, a quantile
in the unbounded bucket is the highest edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from paceline.planner import Lengths


def total(buckets: Mapping[float, float]) -> float:
    """Entries of all buckets: what is at or below infinity."""
    return buckets.get(math.inf, 0.0)


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """None without entries, or without the unbounded bucket, which says how many there are."""
    edges = _ascending(buckets)
    if len(edges) < 2 or not total(buckets) > 0:
        return None
    rank = share * edges[-1][1]
    lower_edge = lower_count = 0.0
    for edge, count in edges:
        if count >= rank and count > lower_count:
            if edge == math.inf:
                return lower_edge
            return lower_edge + (edge - lower_edge) * (rank - lower_count) / (count - lower_count)
        lower_edge, lower_count = edge, count
    return lower_edge


def lengths(buckets: Mapping[float, float], *, mean_tokens: float, window_s: float) -> Lengths | None:
    """Counts over the window. None where nothing ended in it."""
    edges = _ascending(buckets)
    if not total(buckets) > 0:
        return None
    counts, below = [], 0.0
    for _, count in edges:
        counts.append((count - below) * window_s)
        below = count
    return Lengths(
        upper_tokens=tuple(edge for edge, _ in edges), counts=tuple(counts), mean_tokens=mean_tokens
    )


def _ascending(buckets: Mapping[float, float]) -> list[tuple[float, float]]:
    """Sorted, and never falling: replicas may have different edges for a while after a change of targets, and
    an edge that only some of them have counts too few."""
    edges, highest = [], 0.0
    for edge in sorted(buckets):
        highest = max(highest, buckets[edge])
        edges.append((edge, highest))
    return edges
