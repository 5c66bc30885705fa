"""How sure a comparison is: a bootstrap over blocks of time and seeds.

Requests of one afternoon are alike, so that single requests cannot be drawn again as if they were independent:
whole blocks (6 hours of one seed) are. A statistic is a ratio of sums over blocks, such as GPU-hours of one policy
over those of another; ours and theirs are drawn together, for both saw the same traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK_S = 6 * 3600.0
DRAWS = 2000
LEVEL = 0.90


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    value: float
    low: float | None
    """None: fewer than two blocks, so nothing can be said."""
    high: float | None


def bootstrap(
    blocks: Sequence[Floats], statistic: Callable[[Floats], float], *, seed: int, draws: int = DRAWS
) -> Interval:
    """`blocks`: one row of figures a block. `statistic` gets the sum of rows, drawn or not."""
    table = np.array(blocks, dtype=float)
    value = statistic(table.sum(axis=0))
    if len(table) < 2:
        return Interval(value=value, low=None, high=None)
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(table), size=(draws, len(table)))
    found = np.array([statistic(table[pick].sum(axis=0)) for pick in picks])
    return _between(value, found)


def bootstrap_median(
    cells: Sequence[Sequence[Floats]],
    statistic: Callable[[Floats], float],
    *,
    seed: int,
    draws: int = DRAWS,
) -> Interval:
    """The median over cells of a statistic of each cell's blocks; blocks are drawn inside their cell."""
    tables = [np.array(blocks, dtype=float) for blocks in cells]
    value = float(np.median([statistic(table.sum(axis=0)) for table in tables]))
    if all(len(table) < 2 for table in tables):
        return Interval(value=value, low=None, high=None)
    random = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        found[draw] = np.median(
            [
                statistic(table[random.integers(0, len(table), size=len(table))].sum(axis=0))
                for table in tables
            ]
        )
    return _between(value, found)


def _between(value: float, found: Floats) -> Interval:
    tail = (1 - LEVEL) / 2
    known = np.sort(found[~np.isnan(found)])
    if not len(known):
        return Interval(value=value, low=None, high=None)
    # Not between two draws: one of them may be without end.
    low, high = (known[round(share * (len(known) - 1))] for share in (tail, 1 - tail))
    return Interval(value=value, low=float(low), high=float(high))
