"""One picture of a run: traffic, latency against its target, replicas by size, GPUs; the prediction beside what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from e2e.replay.played import Played
from e2e.replay.prediction import Prediction
from paceline_core.latency import Outcome

WINDOW_S: Final = 30.0
_MINUTE_S: Final = 60.0
_COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def draw(path: Path, *, played: Played, prediction: Prediction) -> None:
    figure, (traffic, first, rest, replicas, gpus) = plt.subplots(
        5, 1, figsize=(11, 13), sharex=True, layout="constrained"
    )
    scene, shift = prediction.scene, prediction.recipe.shift
    for axes in (traffic, first, rest, replicas, gpus):
        axes.axvspan(
            shift.from_s / _MINUTE_S, shift.until_s / _MINUTE_S, color="gold", alpha=0.15, linewidth=0
        )
    _traffic(traffic, played, title=_title(played, prediction))
    _latency(
        first,
        played,
        [one.ttft_s for one in played.answers],
        target_s=scene["ttft_ms"] / 1000,
        what="first token",
    )
    _latency(
        rest,
        played,
        [one.tpot_s for one in played.answers],
        target_s=scene["tpot_ms"] / 1000,
        what="per token",
    )
    _replicas(replicas, played, prediction)
    _gpus(gpus, played, prediction)
    for axes in (traffic, replicas, gpus):
        # Only now: before anything was drawn it would fix the upper end too.
        axes.set_ylim(bottom=0)
    gpus.set_xlabel("minutes")
    gpus.set_xlim(0, played.duration_s / _MINUTE_S)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _title(played: Played, prediction: Prediction) -> str:
    scene = prediction.scene
    seen = "-" if played.attainment is None else f"{100 * played.attainment:.2f} %"
    return (
        f"{scene['model']} {scene['format']} on emulated {scene['gpu']}, {played.source}: {seen} attained, "
        f"{100 * prediction.attainment:.2f} % predicted (simulated); {played.failed} failed"
    )


def _traffic(axes: Any, played: Played, *, title: str) -> None:
    arrival_s = np.array([one.arrival_s for one in played.answers])
    at_min, requests = _per_window(arrival_s, np.ones(len(arrival_s)), played.duration_s)
    axes.step(at_min, requests, where="post", color="black")
    axes.set_ylabel("requests/s")
    axes.set_title(title, fontsize=10)
    right = axes.twinx()
    prompts = np.array([float(one.prompt_tokens) for one in played.answers])
    at_min, tokens = _per_window(arrival_s, prompts, played.duration_s)
    right.step(at_min, tokens, where="post", color="tab:purple", linewidth=0.9)
    right.set_ylabel("prompt tokens/s", color="tab:purple")
    right.set_ylim(bottom=0)


def _per_window(at_s: Any, weights: Any, duration_s: float) -> tuple[Any, Any]:
    edges = np.append(np.arange(0.0, duration_s, WINDOW_S), duration_s)
    counted, _ = np.histogram(at_s, bins=edges, weights=weights)
    rate = counted / np.diff(edges)
    return edges / _MINUTE_S, np.append(rate, rate[-1:])


def _latency(
    axes: Any, played: Played, seen_s: Sequence[float | None], *, target_s: float, what: str
) -> None:
    known = [
        (one.arrival_s / _MINUTE_S, 1000 * value, one.outcome is Outcome.GOOD)
        for one, value in zip(played.answers, seen_s, strict=True)
        if value is not None
    ]
    for good, colour, name in ((True, "tab:blue", "all targets met"), (False, "crimson", "a target missed")):
        dots = [(at_min, ms) for at_min, ms, is_good in known if is_good is good]
        if dots:
            axes.scatter(*zip(*dots, strict=True), s=3, color=colour, linewidths=0, label=name)
    axes.axhline(1000 * target_s, color="black", linestyle="--", linewidth=0.9, label="target")
    axes.set_ylim(0, 3000 * target_s)
    axes.set_ylabel(f"{what}, ms")
    axes.legend(fontsize=7, loc="upper right")


def _replicas(axes: Any, played: Played, prediction: Prediction) -> None:
    at_min = [one.at_s / _MINUTE_S for one in played.looks]
    sizes = sorted(
        {size for one in played.looks for size in one.ready}
        | {one.tensor_parallel_size for one in prediction.asked}
    )
    for size, colour in zip(sizes, _COLOURS, strict=False):
        axes.step(
            at_min,
            [one.ready.get(size, 0) for one in played.looks],
            where="post",
            color=colour,
            label=f"TP{size}, Ready",
        )
        asked = [one.replicas if one.tensor_parallel_size == size else 0 for one in prediction.asked]
        moments = [one.at_s / _MINUTE_S for one in prediction.asked]
        axes.step(
            [*moments, played.duration_s / _MINUTE_S],
            [*asked, *asked[-1:]],
            where="post",
            color=colour,
            linestyle=":",
            label=f"TP{size}, asked for in the simulation",
        )
    axes.set_ylabel("replicas")
    axes.legend(fontsize=7, loc="upper right")


def _gpus(axes: Any, played: Played, prediction: Prediction) -> None:
    for held, name, style in ((played.held, "seen", "-"), (prediction.held, "simulated", ":")):
        at_min = [one.at_s / _MINUTE_S for one in held]
        gpus = [one.gpus for one in held]
        axes.step(
            [*at_min, played.duration_s / _MINUTE_S],
            [*gpus, *gpus[-1:]],
            where="post",
            color="black",
            linestyle=style,
            label=name,
        )
    axes.set_title(f"GPUs in the mean: {played.gpus:.2f} seen, {prediction.gpus:.2f} simulated", fontsize=9)
    axes.set_ylabel("GPUs held")
    axes.legend(fontsize=7, loc="upper right")
