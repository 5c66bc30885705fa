"""Reads a pod's own metrics page: the lines that `readings` has a place for, and what each of them means.

Used by `direct` when Prometheus is away. A page has hundreds of lines of which a few dozen matter, and the same
ones at every look, so a line's meaning is found once and remembered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from paceline.metrics import series
from paceline.metrics.queries import BLOCK_TOKENS, BLOCKS
from paceline.metrics.readings import SUM_AND_COUNT, Histogram, PodFigure, Rate

_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_NOT_JUDGED: Final = frozenset({"aborted_early", "client_error"})


@dataclass(frozen=True, slots=True)
class Gauge:
    figure: PodFigure
    rank: int = 0
    """0 for the newest name of a metric: of several on one page the newest counts."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that stands in the labels."""

    figure: PodFigure
    value: float
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Counter:
    figure: str
    rates: tuple[Rate, ...]
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A gauge of which the change over the window counts."""

    figure: Rate
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    figure: Histogram
    edge: float
    rank: int = 0


Meaning = Gauge | Constant | Counter | Change | Bucket


_GAUGES: Final[dict[str, tuple[PodFigure, int]]] = {
    series.RUNNING: ("running", 0),
    series.WAITING: ("waiting", 0),
    series.GATE_HELD: ("held", 0),
    series.GATE_IN_FLIGHT: ("in_flight", 0),
    **{name: ("kv_cache_usage", rank) for rank, name in enumerate(series.KV_CACHE_USAGE)},
}
_RATES: Final[dict[str, tuple[Rate, int]]] = {
    series.GATE_ARRIVALS: ("arrivals", 0),
    series.GATE_CLIENT_ERRORS: ("client_errors", 0),
    series.GATE_UNSERVED: ("unserved", 0),
    series.PROMPT_TOKENS: ("prompt_tokens", 0),
    series.OUTPUT_TOKENS: ("output_tokens", 0),
    series.PREEMPTIONS: ("preemptions", 0),
    **{name: ("cached_prompt_tokens", rank) for rank, name in enumerate(series.CACHED_PROMPT_TOKENS)},
}
_HISTOGRAMS: Final[dict[str, tuple[Histogram, int]]] = {
    series.GATE_TTFT: ("gate_ttft", 0),
    **{name: ("ttft", rank) for rank, name in enumerate(series.TTFT)},
    **{name: ("itl", rank) for rank, name in enumerate(series.ITL)},
    **{name: ("tpot", rank) for rank, name in enumerate(series.TPOT)},
    **{name: ("prompt_length", rank) for rank, name in enumerate(series.PROMPT_LENGTH)},
    **{name: ("output_length", rank) for rank, name in enumerate(series.OUTPUT_LENGTH)},
}


def values(page: str) -> dict[str, float]:
    """The series that mean something, by their text (`name{labels}`)."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        if line.startswith(("paceline_", "vllm:")):
            # A time-stamp after the value is never written by our pods.
            text, _, number = line.rpartition(" ")
            if meaning(text) is not None:
                try:
                    found[text] = float(number)
                except ValueError:
                    found[text] = math.nan
    return found


@lru_cache(maxsize=100_000)
def meaning(text: str) -> Meaning | None:
    """None for a series that counts towards nothing here."""
    name, _, rest = text.partition("{")
    if name in _GAUGES:
        return Gauge(*_GAUGES[name])
    if name in _RATES:
        rate, rank = _RATES[name]
        return Counter(rate, (rate,), rank)
    if name == series.REQUESTS_IN_FLIGHT:
        return Change("in_flight_change")
    labels = {label: _unescaped(value) for label, value in _LABEL.findall(rest)}
    if name == series.REQUESTS:
        return Counter(series.REQUESTS, tuple(_rates_of(labels.get("outcome", ""))))
    if name == series.CACHE_CONFIG:
        size, blocks = labels.get(BLOCK_TOKENS, ""), labels.get(BLOCKS, "")
        known = size.isdigit() and blocks.isdigit()
        return Constant("kv_cache_tokens", float(int(size) * int(blocks))) if known else None
    base, _, part = name.rpartition("_")
    if base not in _HISTOGRAMS:
        return None
    histogram, rank = _HISTOGRAMS[base]
    if part in ("sum", "count"):
        rate = SUM_AND_COUNT[histogram][part == "count"]
        return Counter(rate, (rate,), rank)
    if part == "bucket" and "le" in labels:
        return Bucket(histogram, float(labels["le"]), rank)
    return None


def _rates_of(outcome: str) -> Iterator[Rate]:
    yield "counted"
    if outcome not in _NOT_JUDGED:
        yield "judged"
    if outcome == "good":
        yield "good"


def _unescaped(value: str) -> str:
    return value.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
