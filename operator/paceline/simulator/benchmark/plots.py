"""The report's pictures: frontiers of cost against attainment, and one day as it went.

The only module that imports matplotlib, without a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

OURS = "paceline"
HIGHEST_NINES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    gpu_hours: float
    attainment: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTrace:
    """GPUs over time, as steps: `gpus[i]` from `at_s[i]` on."""

    at_s: Sequence[float]
    gpus: Sequence[float]
    tensor_parallel_sizes: Sequence[int]


def plot_frontiers(
    path: Path,
    *,
    title: str,
    frontiers: Mapping[str, Sequence[FrontierPoint]],
    objective: float,
    bound_gpu_hours: float | None,
) -> None:
    """Up and left is better. Attainment is drawn by its nines, for 99 and 99.9 % are far apart to a user."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for name, points in sorted(frontiers.items(), key=lambda item: item[0] == OURS):
        ordered = sorted(points, key=lambda point: point.gpu_hours)
        axes.plot(
            [point.gpu_hours for point in ordered],
            [_nines(point.attainment) for point in ordered],
            marker="o",
            markersize=5 if name == OURS else 3,
            linewidth=2.5 if name == OURS else 1,
            color="black" if name == OURS else None,
            label=name,
        )
    axes.axhline(_nines(objective), linestyle=":", color="gray")
    if bound_gpu_hours is not None:
        axes.axvline(bound_gpu_hours, linestyle="--", color="gray", label="bound")
    ticks = [0.5, 0.8, 0.9, 0.95, 0.99, 0.999]
    axes.set_yticks([_nines(tick) for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
    axes.set_xlabel("GPU-hours")
    axes.set_ylabel("requests that met all targets (simulated)")
    axes.set_title(title)
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_timeline(
    path: Path,
    *,
    title: str,
    rate_at_s: Sequence[float],
    requests_per_s: Sequence[float],
    fleets: Mapping[str, FleetTrace],
    missed_at_s: Sequence[float] = (),
    missed_share: Sequence[float] = (),
) -> None:
    """Traffic above, GPUs of each policy below; the share of misses of the first policy if given."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(10, 6), sharex=True, height_ratios=(1, 2), layout="constrained"
    )
    hours = np.asarray(rate_at_s, dtype=float) / 3600
    above.fill_between(hours, np.asarray(requests_per_s, dtype=float), step="post", alpha=0.35)
    above.set_ylabel("requests/s")
    above.set_title(title)
    if len(missed_at_s):
        right = above.twinx()
        right.plot(
            np.asarray(missed_at_s) / 3600, 100 * np.asarray(missed_share), color="crimson", linewidth=0.8
        )
        right.set_ylabel("missed, %", color="crimson")
        right.set_ylim(0, 100)
    for name, fleet in fleets.items():
        at = np.asarray(fleet.at_s, dtype=float) / 3600
        below.step(at, fleet.gpus, where="post", label=name, linewidth=2 if name == OURS else 1)
        sizes = np.asarray(fleet.tensor_parallel_sizes)
        for i in np.flatnonzero(np.diff(sizes, prepend=sizes[:1] * 0)):
            below.annotate(
                f"TP{sizes[i]}",
                (at[i], fleet.gpus[int(i)]),
                fontsize=7,
                xytext=(0, 3),
                textcoords="offset points",
            )
    below.set_xlabel("hours")
    below.set_ylabel("GPUs (starting and draining ones too)")
    below.set_ylim(bottom=0)
    if fleets:
        below.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _nines(attainment: float) -> float:
    return float(min(-np.log10(max(1 - attainment, 1e-12)), HIGHEST_NINES))
