"""Sorts the rows of Prometheus' answers by service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import cast

from paceline.metrics import series
from paceline.metrics.prometheus import Row
from paceline.metrics.queries import BLOCK_TOKENS, BLOCKS, FIGURE
from paceline.metrics.readings import Histogram, PodFigure, Rate, Readings


class Answers:
    """The readings of one tick, filled answer by answer."""

    def __init__(self) -> None:
        self._services: defaultdict[tuple[str, str], Readings] = defaultdict(Readings)

    def of(self, namespace: str, name: str) -> Readings | None:
        return self._services.get((namespace, name))

    def add_pods(self, rows: Iterable[Row]) -> None:
        for labels, value in rows:
            figure = cast(PodFigure, labels[FIGURE])
            if figure == "kv_cache_tokens":
                size = _whole(labels.get(BLOCK_TOKENS)), _whole(labels.get(BLOCKS))
                if None in size:
                    continue
                value = cast(int, size[0]) * cast(int, size[1])
            elif figure == "itl_sum" or figure == "itl_count":
                rates, group = self._of(labels).rates, (figure, _size(labels))
                rates[group] = rates.get(group, 0.0) + value
            if (pod := labels.get(series.POD)) is not None:
                self._of(labels).pods.setdefault(pod, {})[figure] = value

    def add_rates(self, rows: Iterable[Row]) -> None:
        for labels, value in rows:
            self._of(labels).rates[cast(Rate, labels[FIGURE]), _size(labels)] = value

    def add_buckets(self, rows: Iterable[Row]) -> None:
        for labels, value in rows:
            key = cast(Histogram, labels[FIGURE]), _size(labels)
            self._of(labels).histograms.setdefault(key, {})[float(labels["le"])] = value

    def _of(self, labels: Mapping[str, str]) -> Readings:
        return self._services[labels.get(series.NAMESPACE, ""), labels.get(series.SERVICE, "")]


def _size(labels: Mapping[str, str]) -> int | None:
    return _whole(labels.get(series.TENSOR_PARALLEL_SIZE))


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
