"""What `paceline simulate --json` says of one run: from each request's outcome and from the shapes over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.planner import Shape

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

WINDOW_S = 600.0
REVERSAL_S = 600.0
DECILES = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """One entry a request, in the order of arrival."""

    arrival_s: Floats
    prompt_tokens: Floats
    ttft_s: Floats
    """NaN: no first token."""
    tpot_s: Floats
    """NaN: no second token."""
    good: Flags
    """Met all its targets."""
    failed: Flags
    """Refused, lost or unfinished at the end; a miss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    gpu_hours: float
    requests: int
    failed: int
    attainment: float | None
    """Joint, per request: all targets met. None: no requests."""
    attainment_by_prompt_decile: tuple[float | None, ...]
    """From the shortest tenth of the prompts to the longest."""
    window_attainment: float | None
    """Share of 10-minute windows whose attainment is at least the objective."""
    worst_window_attainment: float | None
    ttft_s: Percentiles
    tpot_s: Percentiles
    shape_changes: int
    reversals_within_10_min: int
    tp_switches: int
    time_to_recover_s: float
    """The longest time from the first window below the objective to the next that meets it."""
    oracle_gpu_hours: float | None
    """The bound at the objective. None: no schedule reaches it within the GPUs given."""
    regret: float | None
    """gpu_hours over oracle_gpu_hours."""
    decisions_per_second: float | None
    wall_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def attainment_of(outcomes: Outcomes) -> float | None:
    return float(outcomes.good.mean()) if len(outcomes.good) else None


def attainment_by_decile(outcomes: Outcomes) -> tuple[float | None, ...]:
    """Tenths by rank, so that equal prompts split evenly too."""
    order = np.argsort(outcomes.prompt_tokens, kind="stable")
    return tuple(
        float(outcomes.good[part].mean()) if len(part) else None for part in np.array_split(order, DECILES)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """Attainment of each window of the run; windows without a request are left out."""

    start_s: Floats
    attainment: Floats

    @classmethod
    def of(cls, outcomes: Outcomes, *, window_s: float = WINDOW_S) -> Windows:
        index = (outcomes.arrival_s // window_s).astype(int)
        count = np.bincount(index)
        good = np.bincount(index, weights=outcomes.good.astype(float))
        some = np.flatnonzero(count)
        return cls(start_s=some.astype(float) * window_s, attainment=good[some] / count[some])

    def share_meeting(self, objective: float) -> float | None:
        return float((self.attainment >= objective).mean()) if len(self.attainment) else None

    def time_to_recover_s(self, objective: float, *, end_s: float) -> float:
        longest_s, since_s = 0.0, None
        for start_s, attained in zip(self.start_s, self.attainment, strict=True):
            if attained < objective and since_s is None:
                since_s = start_s
            elif attained >= objective and since_s is not None:
                longest_s, since_s = max(longest_s, start_s - since_s), None
        if since_s is not None:
            longest_s = max(longest_s, end_s - since_s)
        return float(longest_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    shape_changes: int
    reversals_within_10_min: int
    """Replicas of one size up and then down, or down and then up, within 10 minutes."""
    tp_switches: int

    @classmethod
    def of(cls, asked: Sequence[tuple[float, Shape]]) -> Calm:
        """`asked`: the shape that was asked for, from each second on, in order."""
        changes = reversals = switches = 0
        last_at_s, last_direction = -np.inf, 0
        for (_, before), (at_s, after) in itertools.pairwise(asked):
            if after == before:
                continue
            changes += 1
            if after.tensor_parallel_size != before.tensor_parallel_size:
                switches += 1
                last_direction = 0
                continue
            direction = 1 if after.replicas > before.replicas else -1
            if direction == -last_direction and at_s - last_at_s <= REVERSAL_S:
                reversals += 1
            last_at_s, last_direction = at_s, direction
        return cls(shape_changes=changes, reversals_within_10_min=reversals, tp_switches=switches)


def percentiles(values: Floats) -> Percentiles:
    some = values[np.isfinite(values)]
    if not len(some):
        return Percentiles(p50=None, p95=None, p99=None)
    p50, p95, p99 = (float(value) for value in np.quantile(some, (0.50, 0.95, 0.99)))
    return Percentiles(p50=p50, p95=p95, p99=p99)


def summarize(
    outcomes: Outcomes,
    *,
    asked: Sequence[tuple[float, Shape]],
    gpu_hours: float,
    objective: float,
    end_s: float,
    oracle_gpu_hours: float | None,
    decisions: int,
    deciding_s: float,
    wall_s: float,
) -> Summary:
    windows = Windows.of(outcomes)
    calm = Calm.of(asked)
    return Summary(
        gpu_hours=gpu_hours,
        requests=len(outcomes.good),
        failed=int(outcomes.failed.sum()),
        attainment=attainment_of(outcomes),
        attainment_by_prompt_decile=attainment_by_decile(outcomes),
        window_attainment=windows.share_meeting(objective),
        worst_window_attainment=float(windows.attainment.min()) if len(windows.attainment) else None,
        ttft_s=percentiles(outcomes.ttft_s),
        tpot_s=percentiles(outcomes.tpot_s),
        shape_changes=calm.shape_changes,
        reversals_within_10_min=calm.reversals_within_10_min,
        tp_switches=calm.tp_switches,
        time_to_recover_s=windows.time_to_recover_s(objective, end_s=end_s),
        oracle_gpu_hours=oracle_gpu_hours,
        regret=gpu_hours / oracle_gpu_hours if oracle_gpu_hours else None,
        decisions_per_second=decisions / deciding_s if deciding_s > 0 else None,
        wall_s=wall_s,
    )
