"""What everything used in each minute, and the tables of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.operator_scale.changes import Lag
from benchmarks.usage import Usage

TICKS = "paceline_operator_decision_tick_seconds"
WRITES = "paceline_operator_writes_total"
SLOPE_MINUTES = 30
"""A slope over less is noise."""

WARM_MINUTES = 10
"""Left out of the slope: caches fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    number: int
    cores: Mapping[str, float]
    """By process."""

    resident_mib: Mapping[str, float]
    writes_per_s: float
    ticks: int
    tick_s: float | None
    """Mean of the decision loop's ticks that ended in it."""

    lags: tuple[Lag, ...]

    def line(self) -> str:
        operator = f"operator {self.resident_mib['operator']:.0f} MiB {self.cores['operator']:.2f} cores"
        others = ", ".join(
            f"{name} {self.resident_mib[name]:.0f} MiB {self.cores[name]:.2f}"
            for name in self.cores
            if name != "operator"
        )
        tick = f"{self.tick_s:.1f} s" if self.tick_s is not None else "none ended"
        lag = quantiles_line([one.from_change_s for one in self.lags])
        return (
            f"minute {self.number}: {operator}, {self.writes_per_s:.1f} writes/s, {self.ticks} ticks of {tick}, "
            f"lag {lag} | {others}"
        )


@dataclass(slots=True)
class Clock:
    """Takes the figures of one minute after the other."""

    pids: Mapping[str, int]
    before: dict[str, Usage] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    at_s: float = 0.0
    number: int = 0
    lags_taken: int = 0

    def start(self, scraped: Mapping[str, float]) -> None:
        self.before = {name: Usage.of(pid) for name, pid in self.pids.items()}
        self.counters, self.at_s = scraped, time.monotonic()

    def take(self, scraped: Mapping[str, float], lags: Sequence[Lag]) -> Minute:
        before, counters, passed_s = self.before, self.counters, time.monotonic() - self.at_s
        self.start(scraped)
        self.number += 1
        ticks = scraped.get(f"{TICKS}_count", 0.0) - counters.get(f"{TICKS}_count", 0.0)
        spent_s = scraped.get(f"{TICKS}_sum", 0.0) - counters.get(f"{TICKS}_sum", 0.0)
        found, self.lags_taken = tuple(lags[self.lags_taken :]), len(lags)
        return Minute(
            number=self.number,
            cores={
                name: (usage.cpu_s - before[name].cpu_s) / passed_s for name, usage in self.before.items()
            },
            resident_mib={name: usage.resident_mib for name, usage in self.before.items()},
            writes_per_s=(_writes(scraped) - _writes(counters)) / passed_s,
            ticks=round(ticks),
            tick_s=spent_s / ticks if ticks else None,
            lags=found,
        )


def summary(minutes: Sequence[Minute]) -> dict[str, Any]:
    """As it is written down."""
    lags = [one for minute in minutes for one in minute.lags]
    return {
        "minutes": len(minutes),
        "changes": len(lags),
        "without_patch": sum(one.from_change_s is None for one in lags),
        "lag_s": _quantiles([one.from_change_s for one in lags]),
        "lag_from_scrape_s": _quantiles([one.from_scrape_s for one in lags]),
        "writes_per_s": _spread([one.writes_per_s for one in minutes]),
        "tick_s": _spread([one.tick_s for one in minutes if one.tick_s is not None]),
        "cores": {name: _spread([one.cores[name] for one in minutes]) for name in minutes[0].cores},
        "resident_mib": {
            name: _spread([one.resident_mib[name] for one in minutes]) for name in minutes[0].resident_mib
        },
        "operator_slope_percent_an_hour": slope_percent([one.resident_mib["operator"] for one in minutes]),
        "each_minute": [asdict(one) for one in minutes],
    }


def table(found: Mapping[str, Any]) -> Iterator[str]:
    lag, scraped, writes, tick = (
        found[key] for key in ("lag_s", "lag_from_scrape_s", "writes_per_s", "tick_s")
    )
    yield f"{'process':26}{'cores':>8}{'most':>8}{'MiB':>10}{'most':>8}"
    for name, cores in found["cores"].items():
        resident = found["resident_mib"][name]
        yield (
            f"{name:26}{cores['mean']:8.2f}{cores['most']:8.2f}{resident['mean']:10.0f}{resident['most']:8.0f}"
        )
    slope = found["operator_slope_percent_an_hour"]
    yield f"slope of the operator      {f'{slope:.2f} % an hour' if slope is not None else 'not told: too short'}"
    yield f"writes of the operator     {writes['mean']:.1f} a second, {writes['most']:.1f} in the busiest minute"
    if tick is not None:
        yield f"a tick                     {tick['mean']:.2f} s, {tick['most']:.2f} s in the slowest minute"
    yield f"changes                    {found['changes']}, {found['without_patch']} without a patch"
    for what, values in (("change to patch", lag), ("first scrape to patch", scraped)):
        if values is not None:
            yield f"{what:27}p50 {values['p50']:.1f} s, p99 {values['p99']:.1f} s, most {values['most']:.1f} s"


def slope_percent(values: Sequence[float]) -> float | None:
    """Of a line through the values of each minute, an hour, of its first value; None where there are too few."""
    if len(values) < SLOPE_MINUTES:
        return None
    values = values[WARM_MINUTES:]
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    rise = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    a_minute = rise / sum((at - middle) ** 2 for at in range(len(values)))
    return 100 * 60 * a_minute / (mean - middle * a_minute)


def quantiles_line(values: Sequence[float | None]) -> str:
    found = _quantiles(values)
    if found is None:
        return "-"
    return f"p50 {found['p50']:.1f} s, most {found['most']:.1f} s of {found['count']:.0f}"


def _quantiles(values: Sequence[float | None]) -> dict[str, float] | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return {"count": len(known), "p50": _at(known, 0.5), "p99": _at(known, 0.99), "most": known[-1]}


def _at(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": sum(values) / len(values), "most": max(values)} if values else None


def _writes(scraped: Mapping[str, float]) -> float:
    return sum(value for name, value in scraped.items() if name.startswith(WRITES))
