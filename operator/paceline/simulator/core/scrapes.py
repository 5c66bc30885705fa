"""What Prometheus holds of a simulated service: cumulative counters and vLLM's histograms, scraped every so often.

A controller asks for windows of it and gets None where too few scrapes lie inside, as `rate` gives nothing. Scrapes
may fail for a while or be seen late (faults).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from paceline.simulator.core import counters, layout
from paceline.simulator.core.traffic import Floats, Ints
from paceline.simulator.core.world import MOST_PODS, World

KEPT_S: Final = 1200.0
STALE_S: Final = 300.0

Judge = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(prompt tokens, output tokens, TTFT, TPOT) → whether each met its targets."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gauges:
    """One replica at a scrape."""

    slot: int
    size: int
    running: float
    waiting: float
    kv_usage: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scrape:
    at_s: float
    counters: Floats
    """A row for each tensor-parallel size; 0: the gate, for all."""
    sizes: frozenset[int]
    """Those that have exported something."""
    firsts: int
    """First tokens so far."""
    finished: int
    """Answers so far."""
    slots: Ints
    """Of the ready replicas; the next two are theirs."""
    sizes_of_slots: Ints
    counts: Ints
    held: int

    @property
    def gauges(self) -> tuple[Gauges, ...]:
        return tuple(
            Gauges(
                slot=slot,
                size=size,
                running=float(counts[layout.IN_BATCH]),
                waiting=float(counts[layout.IN_QUEUE]),
                kv_usage=counts[layout.USED_BLOCKS] / max(counts[layout.ALL_BLOCKS], 1),
            )
            for slot, size, counts in zip(
                self.slots.tolist(), self.sizes_of_slots.tolist(), self.counts.tolist(), strict=True
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Increase:
    """Between two scrapes."""

    row: Floats
    over_s: float
    age_s: float

    def __getitem__(self, column: int) -> float:
        return float(self.row[column])

    def mean(self, total: int, count: int) -> float | None:
        return self[total] / self[count] if self[count] > 0 else None

    @property
    def prompt_histogram(self) -> Floats:
        return self.row[counters.PROMPT : counters.OUTPUT]

    @property
    def output_histogram(self) -> Floats:
        return self.row[counters.OUTPUT :]

    def ttft_s(self, quantile: float) -> float | None:
        return histogram_quantile(quantile, counters.TTFT_EDGES_S, self.row[counters.TTFT : counters.TPOT])

    def tpot_s(self, quantile: float) -> float | None:
        return histogram_quantile(quantile, counters.TPOT_EDGES_S, self.row[counters.TPOT : counters.PROMPT])


def histogram_quantile(quantile: float, edges: Floats, counts: Floats) -> float | None:
    """Prometheus': linear inside a bucket, the last finite edge above it. None without samples."""
    total = float(counts.sum())
    if total <= 0:
        return None
    rank, below = quantile * total, 0.0
    for i, count in enumerate(counts.tolist()):
        if below + count >= rank:
            if i == len(edges):
                return float(edges[-1])
            low = float(edges[i - 1]) if i else 0.0
            share = (rank - below) / count if count else 0.0
            return low + (float(edges[i]) - low) * share
        below += count
    return float(edges[-1])


@dataclass(slots=True, kw_only=True)
class Scrapes:
    world: World
    judge: Judge
    every_s: float
    lag_s: float = 0.0
    gone: tuple[tuple[float, float], ...] = ()
    """Spans in which no scrape succeeds."""
    exact: bool = False
    """Quantiles of latencies are those of the requests, not of the buckets."""
    _kept: list[Scrape] = field(default_factory=list)
    _at: list[float] = field(default_factory=list)
    _rows: Floats = field(default_factory=lambda: np.zeros((counters.LARGEST_SIZE + 1, counters.WIDTH)))
    _sizes: set[int] = field(default_factory=lambda: {0})
    _arrived: int = 0
    _first: int = 0
    _finished: int = 0
    _lost: int = 0
    _tallies: Floats = field(default_factory=lambda: np.zeros((MOST_PODS, layout.TALLIES)))
    """As last read, by slot."""

    @property
    def missed(self) -> float:
        """Requests so far that ended without having met their targets."""
        return float(self._rows[0, counters.JUDGED] - self._rows[0, counters.GOOD])

    def take(self) -> None:
        """The scrape that is due now. What happened is counted even where the scrape fails."""
        self._count()
        world = self.world
        if any(from_s <= world.now_s < until_s for from_s, until_s in self.gone):
            return
        ready = np.flatnonzero(world.status == layout.READY)
        self._kept.append(
            Scrape(
                at_s=world.now_s,
                counters=self._rows.copy(),
                sizes=frozenset(self._sizes),
                firsts=self._first,
                finished=self._finished,
                slots=ready,
                sizes_of_slots=world.size_of_slot[ready],
                counts=world.counts[ready],
                held=world.held,
            )
        )
        self._at.append(world.now_s)
        if len(self._kept) > 2 * KEPT_S / self.every_s:
            old = bisect.bisect_left(self._at, world.now_s - KEPT_S)
            del self._kept[:old], self._at[:old]

    def last(self) -> Scrape | None:
        """The newest that can be seen. None: never, or older than Prometheus' look-back."""
        seen = bisect.bisect_right(self._at, self.world.now_s - self.lag_s) - 1
        if seen < 0 or self.world.now_s - self.lag_s - self._at[seen] > STALE_S:
            return None
        return self._kept[seen]

    def increase(self, window_s: float, *, size: int = 0) -> Increase | None:
        """Over the scrapes that lie in the window that ends now; None with fewer than two."""
        ends = self._ends(window_s)
        if ends is None or size not in ends[1].sizes:
            return None
        older, newer = ends
        return Increase(
            row=newer.counters[size] - older.counters[size],
            over_s=newer.at_s - older.at_s,
            age_s=self.world.now_s - newer.at_s,
        )

    def latency_s(self, kind: Literal["ttft", "tpot"], quantile: float, window_s: float) -> float | None:
        """As `histogram_quantile` gives it, or exactly. None without samples."""
        if not self.exact:
            seen = self.increase(window_s)
            if seen is None:
                return None
            return seen.ttft_s(quantile) if kind == "ttft" else seen.tpot_s(quantile)
        ends = self._ends(window_s)
        if ends is None:
            return None
        older, newer = ends
        if kind == "ttft":
            found = self.world.ttft_s(self.world.firsts[older.firsts : newer.firsts])
        else:
            found = self._tpot_s(self.world.finished[older.finished : newer.finished])
            found = found[np.isfinite(found)]
        return float(np.quantile(found, quantile)) if len(found) else None

    def _ends(self, window_s: float) -> tuple[Scrape, Scrape] | None:
        end_s = self.world.now_s - self.lag_s
        first = bisect.bisect_left(self._at, end_s - window_s - 1e-6)
        last = bisect.bisect_right(self._at, end_s) - 1
        return (self._kept[first], self._kept[last]) if 0 <= first < last else None

    def _tpot_s(self, done: Ints) -> Floats:
        """NaN for one token or none."""
        world = self.world
        output = world.output[done]
        decoding_s = world.done_s[done] - world.first_token_s[done]
        tpot_s: Floats = np.where(output > 1, decoding_s / np.maximum(output - 1, 1), np.nan)
        return tpot_s

    def _count(self) -> None:
        world = self.world
        self._rows[0, counters.JUDGED] += world.lost - self._lost
        self._lost = world.lost
        firsts, done = world.firsts[self._first :], world.finished[self._finished :]
        good = self.judge(
            world.prompt[done], world.output[done], world.ttft_s(done), np.nan_to_num(self._tpot_s(done))
        )
        world.count(
            self._rows,
            arrived=np.arange(self._arrived, world.arrived),
            firsts=firsts,
            done=done,
            good=good,
            known=self._tallies,
        )
        self._arrived, self._first, self._finished = (
            world.arrived,
            self._first + len(firsts),
            self._finished + len(done),
        )
        self._sizes.update(pod.size for pod in world.pods)
