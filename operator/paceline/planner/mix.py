"""The mix of request lengths as weighted points: what the performance model integrates over.

Made from the two histograms of an observation. vLLM's buckets are wide (2,000 to 5,000 tokens is one), so a
bucket is spread over several points, and the points are moved within their buckets until the mean is the
exact mean, which Prometheus knows from sum over count. Prompt and output are taken as independent: the
histograms are marginal, and nothing observed says how they go together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.observation import Lengths

Floats = npt.NDArray[np.float64]

_WITHIN_BUCKET: Final = np.array([0.125, 0.375, 0.625, 0.875])
"""Where a bucket's points lie, as a share of its width on a log scale, before they are moved."""
_EVEN_BUCKET: Final = 1.35
"""A bucket narrower than this ratio gets one point: more would change nothing."""
UNBOUNDED_BUCKET: Final = 2.0
"""The last, infinite bucket is taken to reach this times its lower edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Token counts with their shares, ascending; the shares sum to one."""

    tokens: Floats
    share: Floats

    @property
    def mean(self) -> float:
        return float(self.tokens @ self.share)

    def merged(self, cuts: Floats) -> Points:
        """Fewer points: one for all those between two of the cumulative shares `cuts`, at their mean."""
        middle = np.cumsum(self.share) - self.share / 2
        group = np.searchsorted(cuts, middle)
        share = np.bincount(group, weights=self.share).astype(np.float64)
        tokens = np.bincount(group, weights=self.share * self.tokens).astype(np.float64)
        used = share > 0
        return Points(tokens=tokens[used] / share[used], share=share[used])


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What one request asks of an engine."""

    prompt: Points
    output: Points
    cached_share: float
    """Share of the prompt tokens that the prefix cache has: attended to, not computed."""

    @cached_property
    def decode_steps(self) -> float:
        """Steps that a request spends in the decode batch: the first token comes out of its prefill."""
        return float(np.maximum(self.output.tokens - 1, 0) @ self.output.share)

    @cached_property
    def context_tokens(self) -> float:
        """Mean context of a decoding sequence, as the batch sees it: long answers are seen for longer."""
        steps = np.maximum(self.output.tokens - 1, 0)
        total = float(steps @ self.output.share)
        if total <= 0:
            return self.prompt.mean
        return self.prompt.mean + float((steps * self.output.tokens / 2) @ self.output.share) / total


def points_of(lengths: Lengths) -> Points | None:
    """None if the histogram holds no usable count."""
    upper = np.asarray(lengths.upper_tokens, dtype=np.float64)
    counts = np.asarray(lengths.counts, dtype=np.float64)
    if upper.size == 0 or upper.size != counts.size or not math.isfinite(lengths.mean_tokens):
        return None
    lower = np.concatenate(([1.0], upper[:-1]))
    upper = np.where(np.isfinite(upper), upper, np.maximum(lower, 1.0) * UNBOUNDED_BUCKET)
    lower, upper = np.maximum(lower, 1.0), np.maximum(upper, 1.0)
    used = np.isfinite(counts) & (counts > 0) & (upper >= lower)
    if not used.any() or lengths.mean_tokens <= 0:
        return None
    lower, upper, counts = lower[used], upper[used], counts[used]
    wide = upper > lower * _EVEN_BUCKET
    places, shares, lows, ratios = [], [], [], []
    for is_wide, within in ((True, _WITHIN_BUCKET), (False, np.array([0.5]))):
        chosen = wide == is_wide
        if chosen.any():
            places.append(np.tile(within, int(chosen.sum())))
            shares.append(np.repeat(counts[chosen] / within.size, within.size))
            lows.append(np.repeat(lower[chosen], within.size))
            ratios.append(np.repeat(np.log(upper[chosen] / lower[chosen]), within.size))
    place, share = np.concatenate(places), np.concatenate(shares)
    low, ratio = np.concatenate(lows), np.concatenate(ratios)
    share = share / share.sum()
    tokens = _moved(low=low, ratio=ratio, place=place, share=share, mean=lengths.mean_tokens)
    order = np.argsort(tokens, kind="stable")
    return Points(tokens=tokens[order], share=share[order])


def _moved(*, low: Floats, ratio: Floats, place: Floats, share: Floats, mean: float) -> Floats:
    """The points, moved within their buckets (place ** power) until their mean is `mean`."""

    def at(power: float) -> Floats:
        return low * np.exp(ratio * place**power)

    least, most = 1 / 16, 16.0
    if float(at(most) @ share) < mean < float(at(least) @ share):
        for _ in range(12):
            middle = math.sqrt(least * most)
            if float(at(middle) @ share) > mean:
                least = middle
            else:
                most = middle
    tokens = at(math.sqrt(least * most))
    # What bisection leaves over, and a mean that no point inside the buckets has, is made up by the ratio.
    return tokens * (mean / float(tokens @ share))
