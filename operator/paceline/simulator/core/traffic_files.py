"""Traffic from files: requests one a line, or a rate over time with lengths from elsewhere.

requests   arrival_s,prompt_tokens,output_tokens
rate       t_s,requests_per_s          at the start of each step; between steps the rate is a straight line
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paceline.simulator.core.generators import arrivals
from paceline.simulator.core.traffic import Floats, Pairs, Traffic

REQUEST_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
RATE_COLUMNS = ("t_s", "requests_per_s")


class UnreadableTraffic(ValueError):
    """A file that is no traffic; the message names the file and says what it must hold."""


def read_requests(path: Path) -> Traffic:
    columns = _columns(path, REQUEST_COLUMNS)
    order = np.argsort(columns[0], kind="stable")
    arrival_s = columns[0][order]
    return Traffic(
        arrival_s=arrival_s,
        prompt_tokens=np.maximum(columns[1][order], 1).astype(np.int64),
        output_tokens=np.maximum(columns[2][order], 1).astype(np.int64),
        end_s=float(arrival_s[-1]) + 1.0 if len(arrival_s) else 1.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rate:
    """Requests per second as a line through points in time, from 0 on."""

    at_s: Floats
    requests_per_s: Floats

    @property
    def end_s(self) -> float:
        return float(self.at_s[-1])

    def noisy(self, noise: float, *, seed: int) -> Rate:
        """`noise`: the standard deviation that is added to the count of each minute, in square roots of its mean. A
        rate read off a figure has lost the noise of the real one (about 4 on Azure's 2024 conversation traffic)."""
        minutes = np.append(np.arange(0.0, self.end_s, 60.0), self.end_s)
        counts = np.interp(minutes, self.at_s, self.requests_per_s) * 60.0
        counts += np.random.default_rng(seed + 1).normal(size=len(counts)) * noise * np.sqrt(counts)
        return Rate(at_s=minutes, requests_per_s=np.maximum(counts, 0.0) / 60.0)

    def between(self, from_s: float, until_s: float) -> Rate:
        """A part, with its own zero."""
        inside = self.at_s[(self.at_s > from_s) & (self.at_s < until_s)]
        at_s = np.concatenate([[from_s], inside, [until_s]])
        return Rate(at_s=at_s - from_s, requests_per_s=np.interp(at_s, self.at_s, self.requests_per_s))

    def arrivals(self, lengths: Pairs, *, seed: int, scale: float = 1.0) -> Traffic:
        """Drawn from the rate; each takes one pair of lengths at random. `scale`: of the rate, not of time."""
        return arrivals(self.at_s, self.requests_per_s * scale, lengths, seed=seed)


def read_rate(path: Path) -> Rate:
    at_s, rate = _columns(path, RATE_COLUMNS)
    if len(at_s) < 2 or (np.diff(at_s) <= 0).any():
        raise UnreadableTraffic(f"{path}: write at least two rows, t_s ascending")
    at_s = np.append(at_s, 2 * at_s[-1] - at_s[-2])
    return Rate(at_s=at_s - at_s[0], requests_per_s=np.append(rate, rate[-1]))


def _columns(path: Path, names: tuple[str, ...]) -> tuple[Floats, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in names if name not in (reader.fieldnames or ())]
        if missing:
            raise UnreadableTraffic(
                f"{path}: no column {' and '.join(missing)}: the first line must be {','.join(names)}"
            )
        rows = []
        for row in reader:
            rows.append([_number(path, reader.line_num, name, row[name]) for name in names])
    if not rows:
        raise UnreadableTraffic(f"{path}: no rows below the first line")
    table = np.array(rows)
    return tuple(table[:, i].copy() for i in range(len(names)))


def _number(path: Path, line: int, column: str, written: str | None) -> float:
    where = f"{path}, line {line}, column {column}"
    try:
        value = float(written or "")
    except ValueError as error:
        raise UnreadableTraffic(f"{where}: {written or 'nothing'}: write a number") from error
    if not math.isfinite(value) or value < 0:
        raise UnreadableTraffic(f"{where}: {written}: write a finite number of at least 0")
    return value
