"""The last looks at one pod's page, and the rates between them: what Prometheus would have kept.

Used by `direct`. A counter that falls began anew, and counts from 0 since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from paceline.metrics.page import Bucket, Change, Constant, Counter, Gauge, Meaning, meaning
from paceline.metrics.readings import PodFigure, Rate, Readings


class PodHistory:
    """Looks at one pod, ascending in time: those of the window, and the last one before it."""

    def __init__(self, *, window_s: float) -> None:
        self._window_s = window_s
        self._looks: deque[tuple[float, dict[str, float]]] = deque()
        """(time, value of each series), counters corrected for new beginnings: they only grow."""

        self._raw: Mapping[str, float] = {}

    def add(self, at_s: float, values: Mapping[str, float]) -> None:
        """A page, as `page.values` reads it."""
        before = self._looks[-1][1] if self._looks else {}
        corrected = {}
        for text, value in values.items():
            corrected[text] = value
            if text in before and isinstance(meaning(text), Counter | Bucket):
                grown = value - self._raw[text]
                corrected[text] = before[text] + (value if grown < 0 else grown)
        self._raw = values
        self._looks.append((at_s, corrected))
        while len(self._looks) > 2 and self._looks[1][0] <= at_s - self._window_s:
            self._looks.popleft()

    def add_to(self, readings: Readings, *, pod: str, size: int | None, now_s: float) -> None:
        """Put in what this pod says. Rates need two looks."""
        if not self._looks:
            return
        since_s, oldest = self._looks[0]
        at_s, newest = self._looks[-1]
        readings.pods.setdefault(pod, {})["age_s"] = now_s - at_s
        for text, told in _newest_names(newest):
            if isinstance(told, Gauge | Constant):
                _put_gauge(readings.pods[pod], told, newest[text])
            elif text in oldest and at_s > since_s:
                _put_rate(readings, told, size, (newest[text] - oldest[text]) / (at_s - since_s))


def _put_gauge(gauges: dict[PodFigure, float], told: Gauge | Constant, value: float) -> None:
    # The ranks of a data-parallel server have one series each: requests add up, the KV cache does not.
    if isinstance(told, Constant):
        gauges[told.figure] = told.value
    elif told.figure == "kv_cache_usage":
        gauges[told.figure] = max(value, gauges.get(told.figure, 0.0))
    else:
        gauges[told.figure] = value + gauges.get(told.figure, 0.0)


def _put_rate(readings: Readings, told: Counter | Change | Bucket, size: int | None, per_s: float) -> None:
    if isinstance(told, Bucket):
        buckets = readings.histograms.setdefault((told.figure, size), {})
        buckets[told.edge] = buckets.get(told.edge, 0.0) + per_s
        return
    rates: tuple[Rate, ...] = told.rates if isinstance(told, Counter) else (told.figure,)
    for rate in rates:
        readings.rates[rate, size] = readings.rates.get((rate, size), 0.0) + per_s


def _newest_names(values: Mapping[str, float]) -> list[tuple[str, Meaning]]:
    """The series of a page without those that another, newer name on it says too."""
    told = [(text, found) for text in values if (found := meaning(text)) is not None]
    least: dict[str, int] = {}
    for _, one in told:
        least[one.figure] = min(one.rank, least.get(one.figure, one.rank))
    return [(text, one) for text, one in told if one.rank == least[one.figure]]
