"""Traffic from files: requests one a line, or a rate over time with lengths from elsewhere.

requests   arrival_s,prompt_tokens,output_tokens
rate       t_s,requests_per_s          at the start of each step; between steps the rate is a straight line
"""

from __future__ import annotations

import csv
import math
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


def read_rate(path: Path, lengths: Pairs, *, seed: int, scale: float = 1.0, noise: float = 0.0) -> Traffic:
    """Arrivals drawn from the rate; each takes one pair of lengths at random. `scale`: of the rate, not of time.

    `noise`: the standard deviation that is added to the count of each minute, in square roots of its mean. A rate
    read off a figure has lost the noise of the real one (about 4 on Azure's 2024 conversation traffic).
    """
    at_s, rate = _columns(path, RATE_COLUMNS)
    if len(at_s) < 2 or (np.diff(at_s) <= 0).any():
        raise UnreadableTraffic(f"{path}: write at least two rows, t_s ascending")
    at_s = np.append(at_s, 2 * at_s[-1] - at_s[-2])
    rate = np.append(rate, rate[-1]) * scale
    if noise > 0:
        minutes = np.append(np.arange(at_s[0], at_s[-1], 60.0), at_s[-1])
        counts = np.interp(minutes, at_s, rate) * 60.0
        random = np.random.default_rng(seed + 1)
        counts += random.normal(0.0, 1.0, size=len(counts)) * noise * np.sqrt(counts)
        at_s, rate = minutes, np.maximum(counts, 0.0) / 60.0
    return arrivals(at_s - at_s[0], rate, lengths, seed=seed)


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
