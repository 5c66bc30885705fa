"""Timing tables against measured closed-loop rows: each row replayed, and the errors that matter to a planner.

Called by `paceline timing check`. Pure. The figures: signed TPOT bias; how far off the highest concurrency is that
keeps a TPOT; TTFT; and whether the best TP is the measured one. A row whose measured TTFT is above five seconds had no
room in the KV cache: it is replayed and listed, but left out of every figure.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final, TypeVar

from paceline.cli.timing_closed_loop import closed_loop, draw_lengths
from paceline_core.timing import StepTiming

COLUMNS: Final = (
    *("model", "format", "gpu", "tp", "prompt_tokens", "output_tokens", "concurrency"),
    *("ttft_ms", "tpot_ms"),
)
SATURATED_TTFT_MS: Final = 5000
REQUESTS_PER_CLIENT: Final = 10
LEAST_REQUESTS: Final = 160
"""Few clients are replayed several times, each with other lengths."""
SLACK: Final = 1.05
"""A TPOT target is a measured row's own TPOT and this much more: else the row would stand on the edge of it."""

_MEAN_LENGTH: Final = 0.9

_Key = TypeVar("_Key")


class BadRows(ValueError):
    """The file of measured rows is not as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    model: str
    format: str
    gpu: str
    tp: int
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    ttft_ms: float
    tpot_ms: float

    @property
    def saturated(self) -> bool:
        return self.ttft_ms > SATURATED_TTFT_MS

    @property
    def setting(self) -> tuple[str, str, str, int]:
        return (self.model, self.format, self.gpu, self.tp)

    @property
    def workload(self) -> tuple[str, str, str, int, int]:
        return (self.model, self.format, self.gpu, self.prompt_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    row: Row
    ttft_ms: float
    tpot_ms: float

    @property
    def ttft_error(self) -> float:
        return self.ttft_ms / self.row.ttft_ms - 1

    @property
    def tpot_error(self) -> float:
        return self.tpot_ms / self.row.tpot_ms - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingErrors:
    """Of one (model, format, GPU, TP). Shares, not percents; None without a row that counts."""

    setting: tuple[str, str, str, int]
    rows: int
    saturated: int
    tpot_bias: float | None
    tpot_error: float | None
    concurrency_error: float | None
    """Median, unsigned."""
    ttft_bias: float | None
    ttft_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSize:
    right: int
    asked: int


def read_rows(lines: Iterable[str]) -> list[Row]:
    reader = csv.DictReader(lines)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise BadRows(f"columns are missing: {', '.join(missing)}; write {','.join(COLUMNS)}")
    return [_row(number, cells) for number, cells in enumerate(reader, start=2)]


def replay(row: Row, timing: StepTiming, *, max_batched_tokens: int, seed: int = 0) -> Replayed:
    requests = REQUESTS_PER_CLIENT * row.concurrency
    times = [
        closed_loop(
            timing,
            draw_lengths(
                prompt_tokens=row.prompt_tokens,
                output_tokens=row.output_tokens,
                requests=requests,
                seed=seed + run,
            ),
            concurrency=row.concurrency,
            max_batched_tokens=max_batched_tokens,
        )
        for run in range(math.ceil(LEAST_REQUESTS / requests))
    ]
    return Replayed(
        row=row,
        ttft_ms=1000 * fmean(one.ttft_s for one in times),
        tpot_ms=1000 * fmean(one.tpot_s for one in times),
    )


def errors_by_setting(replayed: Iterable[Replayed]) -> Iterator[SettingErrors]:
    for setting, group in _grouped(replayed, lambda one: one.row.setting).items():
        counted = [one for one in group if not one.row.saturated]
        concurrency = concurrency_errors(counted)
        yield SettingErrors(
            setting=setting,
            rows=len(counted),
            saturated=len(group) - len(counted),
            tpot_bias=_mean(one.tpot_error for one in counted),
            tpot_error=_mean(abs(one.tpot_error) for one in counted),
            concurrency_error=median(map(abs, concurrency)) if concurrency else None,
            ttft_bias=_mean(one.ttft_error for one in counted),
            ttft_error=_mean(abs(one.ttft_error) for one in counted),
        )


def concurrency_errors(replayed: Iterable[Replayed]) -> list[float]:
    """Each measured TPOT as a target: the highest concurrency that keeps it, replayed over measured, less one."""
    found = []
    for group in _grouped(replayed, lambda one: (one.row.setting, one.row.workload)).values():
        curve = sorted(group, key=lambda one: one.row.concurrency)
        if len(curve) < 2:
            continue
        for one in curve:
            reached = _highest_concurrency(curve, one.row.tpot_ms)
            found.append(reached / one.row.concurrency - 1)
    return found


def best_size(replayed: Iterable[Replayed]) -> BestSize:
    """For each row, with its TPOT as the target: is the TP with most output per GPU the one that was measured so?"""
    right = asked = 0
    counted = [one for one in replayed if not one.row.saturated]
    for group in _grouped(counted, lambda one: one.row.workload).values():
        if len({one.row.tp for one in group}) < 2:
            continue
        for one in group:
            target_ms = SLACK * one.row.tpot_ms
            measured = _best(group, target_ms, lambda r: (r.row.ttft_ms, r.row.tpot_ms))
            simulated = _best(group, target_ms, lambda r: (r.ttft_ms, r.tpot_ms))
            asked += 1
            right += measured == simulated
    return BestSize(right=right, asked=asked)


def _best(
    group: Sequence[Replayed], target_ms: float, times: Callable[[Replayed], tuple[float, float]]
) -> int | None:
    def per_gpu(one: Replayed) -> float:
        ttft_ms, tpot_ms = times(one)
        answered_ms = ttft_ms + _MEAN_LENGTH * one.row.output_tokens * tpot_ms
        return one.row.concurrency / answered_ms / one.row.tp

    kept = [one for one in group if times(one)[1] <= target_ms]
    return max(kept, key=per_gpu).row.tp if kept else None


def _highest_concurrency(curve: Sequence[Replayed], target_ms: float) -> float:
    """Between replayed points along the logarithm; beyond the last at the last slope."""
    points: list[tuple[float, float]] = []
    for one in curve:
        tpot_ms = max(one.tpot_ms, points[-1][1] + 1e-9) if points else one.tpot_ms
        points.append((math.log(one.row.concurrency), tpot_ms))
    if target_ms <= points[0][1]:
        return math.exp(points[0][0])
    right = next((i for i, (_, tpot_ms) in enumerate(points) if tpot_ms >= target_ms), len(points) - 1)
    (x0, y0), (x1, y1) = points[right - 1], points[right]
    return math.exp(x0 + (x1 - x0) * (target_ms - y0) / (y1 - y0))


def _row(number: int, cells: Mapping[str, str]) -> Row:
    try:
        return Row(
            model=cells["model"],
            format=cells["format"],
            gpu=cells["gpu"].removesuffix("_sxm"),
            tp=int(cells["tp"]),
            prompt_tokens=int(cells["prompt_tokens"]),
            output_tokens=int(cells["output_tokens"]),
            concurrency=int(cells["concurrency"]),
            ttft_ms=float(cells["ttft_ms"]),
            tpot_ms=float(cells["tpot_ms"]),
        )
    except (TypeError, ValueError) as error:
        raise BadRows(f"line {number}: {error}") from error


def _grouped(replayed: Iterable[Replayed], key: Callable[[Replayed], _Key]) -> dict[_Key, list[Replayed]]:
    groups: dict[_Key, list[Replayed]] = defaultdict(list)
    for one in replayed:
        groups[key(one)].append(one)
    return groups


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return fmean(listed) if listed else None
