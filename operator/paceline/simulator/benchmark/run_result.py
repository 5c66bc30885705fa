"""One run as a result file keeps it: its summary, and what else the report's targets are judged by."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paceline.planner import Shape
from paceline.simulator.benchmark.interval import BLOCK_S
from paceline.simulator.benchmark.scene import Scene
from paceline.simulator.hindsight import run_named
from paceline.simulator.policies.knob import Settings
from paceline.simulator.policies.named import OURS, policy_of
from paceline.simulator.policies.shapes import Kept
from paceline.simulator.simulation import GiveUp, Run, simulate
from paceline.simulator.summary import Calm

SETTLED_AFTER_START_S = 60.0
FOUND_AFTER_S = 7200.0
"""By then the right size is to be found."""

MOST_REPLAYED = 8


def run_of(policy: str, scene: Scene, settings: Settings, *, give_up: GiveUp | None = None) -> Run:
    return run_named(
        policy,
        scene.traffic,
        scene.service,
        scene.setting,
        settings=settings,
        seed=scene.seed,
        prior=scene.prior,
        first=scene.first if policy == OURS else None,
        give_up=give_up,
    )


def result_of(run: Run, scene: Scene, settings: Settings) -> dict[str, Any]:
    return {
        "settings": dict(settings),
        **run.summary(objective=scene.service.slo.objective).to_dict(),
        "calm": asdict(Calm.of(run.asked)),
        "blocks": _blocks(run),
        "settled": _span(run, scene.setting.start_s + SETTLED_AFTER_START_S, run.end_s),
        "after_2_h": _span(run, FOUND_AFTER_S, run.end_s) if run.end_s > FOUND_AFTER_S else None,
        "gpu_trace": {
            "at_s": run.gpu_trace.at_s,
            "gpus": run.gpu_trace.gpus,
            "sizes": [int(size) for size in run.gpu_trace.sizes],
        },
    }


def without_each_switch(run: Run, scene: Scene, settings: Settings) -> list[dict[str, Any]]:
    """Ours once more for each change of the size, with the old size kept until the next change: same seed, same
    traffic. Pods that start for the change begin with cold prefix caches, so refilling them is paid for."""
    switches = switches_of(run.asked)
    found = []
    for one, following in list(itertools.zip_longest(switches, switches[1:]))[:MOST_REPLAYED]:
        end_s = following.at_s if following else run.end_s
        policy = policy_of(OURS, scene.service, settings, prior=scene.prior)
        kept = Kept(policy, size=one.old, from_s=one.at_s, until_s=end_s)
        other = simulate(scene.traffic, scene.setting, kept, first=run.asked[0][1], seed=scene.seed)
        found.append({**asdict(one), **_span(other, 0.0, run.end_s)})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    at_s: float
    old: int
    new: int


def switches_of(asked: Sequence[tuple[float, Shape]]) -> list[Switch]:
    return [
        Switch(at_s=at_s, old=before.tensor_parallel_size, new=after.tensor_parallel_size)
        for (_, before), (at_s, after) in itertools.pairwise(asked)
        if before.tensor_parallel_size != after.tensor_parallel_size
    ]


def block_count(end_s: float) -> int:
    return max(int(-(-end_s // BLOCK_S)), 1)


def _blocks(run: Run) -> list[dict[str, float]]:
    index = np.minimum((run.outcomes.arrival_s // BLOCK_S).astype(int), block_count(run.end_s) - 1)
    return [
        {
            "gpu_hours": run.gpu_trace.gpu_seconds(
                from_s=block * BLOCK_S, until_s=min((block + 1) * BLOCK_S, run.end_s)
            )
            / 3600,
            "requests": int((index == block).sum()),
            "good": int(run.outcomes.good[index == block].sum()),
        }
        for block in range(block_count(run.end_s))
    ]


def _span(run: Run, from_s: float, until_s: float) -> dict[str, float | None]:
    arrived = (run.outcomes.arrival_s >= from_s) & (run.outcomes.arrival_s < until_s)
    return {
        "gpu_hours": run.gpu_trace.gpu_seconds(from_s=from_s, until_s=until_s) / 3600,
        "attainment": float(run.outcomes.good[arrived].mean()) if arrived.any() else None,
    }
