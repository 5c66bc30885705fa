"""What Prometheus holds of a simulated service: cumulative counters and vLLM's histograms, scraped every so often.

A controller asks for windows of it and gets None where too few scrapes lie inside, as `rate` gives nothing. Scrapes
may fail for a while or be seen late (faults).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from paceline.simulator.core import layout
from paceline.simulator.core.traffic import Floats
from paceline.simulator.core.world import World

TTFT_EDGES_S: Final = np.array(
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
     80.0, 160.0, 640.0, 2560.0]
)  # fmt: skip
TPOT_EDGES_S: Final = np.array(
    [
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.15,
        0.2,
        0.3,
        0.4,
        0.5,
        0.75,
        1.0,
        2.5,
        5.0,
        7.5,
        10.0,
        20.0,
        40.0,
        80.0,
    ]
)
LENGTH_EDGES: Final = np.array([m * 10.0**e for e in range(6) for m in (1, 2, 5)])

KEPT_S: Final = 1200.0
STALE_S: Final = 300.0

_SCALARS: Final = (
    "arrivals", "arrived_prompt", "firsts", "ttft_sum", "finished", "output_sum", "tpots",
    "tpot_sum", "request_sum", "good", "judged", "generated", "computed", "cached", "preempted",
)  # fmt: skip
_AT: Final = {name: i for i, name in enumerate(_SCALARS)}
_TALLIES: Final = slice(_AT["generated"], _AT["preempted"] + 1)
"""In the order of `World.tallies`."""
_TTFT: Final = slice(len(_SCALARS), len(_SCALARS) + len(TTFT_EDGES_S) + 1)
_TPOT: Final = slice(_TTFT.stop, _TTFT.stop + len(TPOT_EDGES_S) + 1)
_PROMPT: Final = slice(_TPOT.stop, _TPOT.stop + len(LENGTH_EDGES) + 1)
_OUTPUT: Final = slice(_PROMPT.stop, _PROMPT.stop + len(LENGTH_EDGES) + 1)
WIDTH: Final = _OUTPUT.stop

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
    counters: dict[int, Floats]
    """By tensor-parallel size; 0: the gate, for all."""
    gauges: tuple[Gauges, ...]
    held: int
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Increase:
    """Between two scrapes."""

    row: Floats
    over_s: float
    age_s: float

    def __getitem__(self, name: str) -> float:
        return float(self.row[_AT[name]])

    def mean(self, total: str, count: str) -> float | None:
        return self[total] / self[count] if self[count] > 0 else None

    @property
    def prompt_histogram(self) -> Floats:
        return self.row[_PROMPT]

    @property
    def output_histogram(self) -> Floats:
        return self.row[_OUTPUT]

    def ttft_s(self, quantile: float) -> float | None:
        return histogram_quantile(quantile, TTFT_EDGES_S, self.row[_TTFT])

    def tpot_s(self, quantile: float) -> float | None:
        return histogram_quantile(quantile, TPOT_EDGES_S, self.row[_TPOT])


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
    _kept: list[Scrape] = field(default_factory=list)
    _at: list[float] = field(default_factory=list)
    _counters: dict[int, Floats] = field(default_factory=dict)
    _arrived: int = 0
    _first: int = 0
    _finished: int = 0
    _lost: int = 0
    _tallies: dict[tuple[int, float], Floats] = field(default_factory=dict)
    """As last read, by slot and creation: a new pod counts from 0."""

    def take(self) -> None:
        """The scrape that is due now. What happened is counted even where the scrape fails."""
        self._count()
        world = self.world
        if any(from_s <= world.now_s < until_s for from_s, until_s in self.gone):
            return
        gauges = tuple(
            Gauges(
                slot=pod.slot,
                size=pod.size,
                running=float(world.counts[pod.slot, 0]),
                waiting=float(world.counts[pod.slot, 1]),
                kv_usage=float(world.counts[pod.slot, 2]) / max(float(world.counts[pod.slot, 3]), 1.0),
            )
            for pod in world.pods
            if world.status[pod.slot] == layout.READY
        )
        self._kept.append(
            Scrape(
                at_s=world.now_s,
                counters={size: row.copy() for size, row in self._counters.items()},
                gauges=gauges,
                held=world.held,
                preemptions=world.preemptions,
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
        end_s = self.world.now_s - self.lag_s
        first = bisect.bisect_left(self._at, end_s - window_s - 1e-6)
        last = bisect.bisect_right(self._at, end_s) - 1
        if last <= first or last < 0:
            return None
        newer, older = self._kept[last], self._kept[first]
        row = newer.counters.get(size)
        if row is None:
            return None
        before = older.counters.get(size)
        return Increase(
            row=row - before if before is not None else row,
            over_s=newer.at_s - older.at_s,
            age_s=self.world.now_s - newer.at_s,
        )

    def _row(self, size: int) -> Floats:
        return self._counters.setdefault(size, np.zeros(WIDTH))

    def _count(self) -> None:
        world = self.world
        arrived = world.arrived
        gate = self._row(0)
        prompts = world.prompt[self._arrived : arrived]
        gate[_AT["arrivals"]] += len(prompts)
        gate[_AT["arrived_prompt"]] += float(prompts.sum())
        gate[_PROMPT] += _counted(LENGTH_EDGES, prompts)
        self._arrived = arrived
        gate[_AT["judged"]] += world.lost - self._lost
        self._lost = world.lost
        self._count_tallies()
        firsts = world.firsts[self._first :]
        self._first = len(world.firsts)
        done = world.finished[self._finished :]
        self._finished = len(world.finished)
        if len(firsts):
            ttft = world.ttft_s(firsts)
            sizes = world.size_of_slot[world.replica_of[firsts]]
            for size in (0, *np.unique(sizes)):
                mine = sizes == size if size else slice(None)
                row = self._row(int(size))
                row[_AT["firsts"]] += len(ttft[mine])
                row[_AT["ttft_sum"]] += float(ttft[mine].sum())
                row[_TTFT] += _counted(TTFT_EDGES_S, ttft[mine])
        if len(done):
            sizes = world.size_of_slot[world.replica_of[done]]
            for size in (0, *np.unique(sizes)):
                self._count_done(self._row(int(size)), done[sizes == size] if size else done)

    def _count_tallies(self) -> None:
        seen: dict[tuple[int, float], Floats] = {}
        for pod in self.world.pods:
            key = (pod.slot, pod.created_s)
            tallies = self.world.tallies[pod.slot]
            seen[key] = tallies.copy()
            more = tallies - self._tallies[key] if key in self._tallies else tallies
            for row in (self._row(0), self._row(pod.size)):
                row[_TALLIES] += more
        self._tallies = seen

    def _count_done(self, row: Floats, done: np.ndarray) -> None:
        world = self.world
        output, prompt = world.output[done], world.prompt[done]
        ttft = world.ttft_s(done)
        decoding = world.done_s[done] - world.first_token_s[done]
        tpot = decoding / np.maximum(output - 1, 1)
        several = output > 1
        row[_AT["finished"]] += len(done)
        row[_AT["output_sum"]] += float(output.sum())
        row[_AT["tpots"]] += int(several.sum())
        row[_AT["tpot_sum"]] += float(tpot[several].sum())
        row[_AT["request_sum"]] += float((ttft + decoding).sum())
        row[_AT["good"]] += int(self.judge(prompt, output, ttft, tpot).sum())
        row[_AT["judged"]] += len(done)
        row[_TPOT] += _counted(TPOT_EDGES_S, tpot[several])
        row[_OUTPUT] += _counted(LENGTH_EDGES, output)


def _counted(edges: Floats, values: np.ndarray) -> Floats:
    counted: Floats = np.bincount(
        np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1
    ).astype(float)
    return counted
