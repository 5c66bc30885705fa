"""The jobs of a benchmark: small, independent, each with one file that says it is done.

    tuning/<training>/<policy>.json     all trials and the setting that won
    optimum/<cell>.json                 bound, certificate
    runs/<cell>/<policy>.json           as shipped, and the frontier around the tuned setting

A file that is there is never made again, so a benchmark that was stopped goes on where it was. Files are written
whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paceline.simulator.benchmark.interval import BLOCK_S
from paceline.simulator.benchmark.scene import Scene, capped, cell_scene, training_scene
from paceline.simulator.benchmark.suite import Cell, Suite, Training
from paceline.simulator.benchmark.tuning import Score, best, frontier_values, tune
from paceline.simulator.hindsight import run_named
from paceline.simulator.oracle.optimum import optimum_of
from paceline.simulator.oracle.problem import NoPlan
from paceline.simulator.policies.knob import Settings
from paceline.simulator.policies.named import OURS, OURS_FIXED, WITH_HINDSIGHT, knobs_of
from paceline.simulator.simulation import Run
from paceline.simulator.summary import Calm, summarize


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a benchmark reads and writes."""

    out: Path
    traces: Path | None

    def tuning(self, training: str, policy: str) -> Path:
        return self.out / "tuning" / training / f"{policy}.json"

    def optimum(self, cell: str) -> Path:
        return self.out / "optimum" / f"{cell}.json"

    def runs(self, cell: str, policy: str) -> Path:
        return self.out / "runs" / cell / f"{policy}.json"


def write(path: Path, body: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(body), encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def do_tuning(suite: Suite, training: Training, policy: str, place: Place) -> None:
    path = place.tuning(training.name, policy)
    if path.is_file() or policy in WITH_HINDSIGHT:
        return
    scene = training_scene(training, suite, traces=place.traces)
    objective = scene.service.slo.objective

    def evaluate(settings: Settings) -> Score:
        run = _run(policy, scene, settings)
        return Score(attainment=float(run.outcomes.good.mean()), gpu_hours=run.gpu_hours)

    trials = tune(
        knobs_of(policy, scene.service, scene.traffic),
        evaluate,
        objective=objective,
        trials=suite.trials,
        seed=suite.seed,
    )
    won = best(trials, objective=objective)
    write(
        path,
        {
            "policy": policy,
            "training": training.name,
            "traffic": scene.source,
            "objective": objective,
            "trials": [{"settings": dict(one.settings), **asdict(one.score)} for one in trials],
            "won": dict(won.settings),
            "held": won.score.attainment >= objective,
        },
    )


def do_optimum(suite: Suite, cell: Cell, place: Place) -> None:
    path = place.optimum(cell.name)
    if path.is_file():
        return
    scene = _scene(suite, cell, place)
    try:
        found = optimum_of(
            scene.traffic,
            scene.service,
            scene.setting,
            objective=scene.service.slo.objective,
            seed=scene.seed,
            certify=True,
        )
    except NoPlan as error:
        body = {"cell": cell.name, "dropped": str(error), "requests": len(scene.traffic)}
        if cell.max_gpus_share < 1 and len(scene.traffic):
            body["best_attainment"] = 1 - error.fewest_misses / len(scene.traffic)
        write(path, body)
        return
    blocks = _block_count(scene.traffic.end_s)
    per_block = np.zeros(blocks)
    for slot, hours in enumerate(found.bound.gpu_hours_by_slot):
        per_block[min(int(slot * found.slot_s // BLOCK_S), blocks - 1)] += hours
    write(
        path,
        {
            "cell": cell.name,
            "dropped": None,
            "traffic": scene.source,
            "requests": len(scene.traffic),
            "hours": scene.traffic.end_s / 3600,
            "max_gpus": scene.service.max_gpus,
            "objective": scene.service.slo.objective,
            "bound_gpu_hours": found.bound.gpu_hours,
            "bound_by_block": per_block.tolist(),
            "certificate_gpu_hours": found.certificate_gpu_hours,
            "certificate_attainment": found.certificate_attainment,
            "resolved": found.resolved,
            "best_single_tp": found.best_single_size,
            "single_tp_bound_gpu_hours": found.single_size_gpu_hours,
        },
    )


def do_runs(suite: Suite, cell: Cell, policy: str, place: Place) -> None:
    path = place.runs(cell.name, policy)
    if path.is_file():
        return
    scene = _scene(suite, cell, place)
    if policy in WITH_HINDSIGHT and policy != OURS_FIXED:
        write(
            path,
            {"policy": policy, "cell": cell.name, "shipped": _described(policy, scene, {}), "frontier": []},
        )
        return
    knobs = knobs_of(policy, scene.service, scene.traffic)
    shipped = {knob.name: knob.default for knob in knobs}
    tuned_as = OURS if policy == OURS_FIXED else policy
    won: dict[str, float] = read(place.tuning(cell.trained_on, tuned_as))["won"]
    made: dict[tuple[tuple[str, float], ...], dict[str, Any]] = {}

    def described(settings: Mapping[str, float]) -> dict[str, Any]:
        key = tuple(sorted(settings.items()))
        if key not in made:
            made[key] = _described(policy, scene, settings)
        return made[key]

    points = 1 if policy == OURS_FIXED else suite.frontier_points
    frontier = [
        described({**won, knobs[0].name: value})
        for value in frontier_values(knobs[0], won[knobs[0].name], points=points)
    ]
    if won not in [one["settings"] for one in frontier]:
        frontier.append(described(won))
    write(
        path,
        {
            "policy": policy,
            "cell": cell.name,
            "shipped": described(shipped),
            "frontier": frontier,
            "tuned": won,
        },
    )


def _scene(suite: Suite, cell: Cell, place: Place) -> Scene:
    """With the GPU cap, if the cell has one: a share of what the unlimited optimum holds at its highest."""
    scene = cell_scene(cell, suite, traces=place.traces)
    if cell.max_gpus_share == 1.0:
        return scene
    path = place.out / "caps" / f"{cell.name}.json"
    if not path.is_file():
        found = optimum_of(
            scene.traffic,
            scene.service,
            scene.setting,
            objective=scene.service.slo.objective,
            seed=scene.seed,
            certify=True,
        )
        shapes = found.plan.shapes if found.plan else ()
        need = max((shape.gpus for shape in shapes if shape is not None), default=scene.service.max_gpus)
        write(path, {"need": need})
    need = int(read(path)["need"])
    return capped(scene, max(int(need * cell.max_gpus_share), min(scene.service.sizes)))


def _run(policy: str, scene: Scene, settings: Settings) -> Run:
    return run_named(
        policy,
        scene.traffic,
        scene.service,
        scene.setting,
        settings=settings,
        seed=scene.seed,
        prior=scene.prior,
        first=scene.first if policy == OURS else None,
    )


def _described(policy: str, scene: Scene, settings: Mapping[str, float]) -> dict[str, Any]:
    run = _run(policy, scene, settings)
    summary = summarize(
        run.outcomes,
        asked=run.asked,
        gpu_hours=run.gpu_hours,
        objective=scene.service.slo.objective,
        end_s=run.end_s,
        oracle_gpu_hours=None,
        decisions=run.decisions,
        deciding_s=run.deciding_s,
        wall_s=run.wall_s,
    ).to_dict()
    calm = Calm.of(run.asked)
    return {
        "settings": dict(settings),
        **summary,
        "calm": asdict(calm),
        "blocks": _blocks(run),
        "gpu_trace": {
            "at_s": run.gpu_trace.at_s,
            "gpus": run.gpu_trace.gpus,
            "sizes": [int(size) for size in run.gpu_trace.sizes],
        },
    }


def _block_count(end_s: float) -> int:
    return max(int(-(-end_s // BLOCK_S)), 1)


def _blocks(run: Run) -> list[dict[str, float]]:
    index = np.minimum((run.outcomes.arrival_s // BLOCK_S).astype(int), _block_count(run.end_s) - 1)
    return [
        {
            "gpu_hours": run.gpu_trace.gpu_seconds(
                from_s=block * BLOCK_S, until_s=min((block + 1) * BLOCK_S, run.end_s)
            )
            / 3600,
            "requests": int((index == block).sum()),
            "good": int(run.outcomes.good[index == block].sum()),
        }
        for block in range(_block_count(run.end_s))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to be made. `stage`: jobs of a lower stage come first."""

    kind: str
    stage: int
    name: str
    policy: str = ""

    def path(self, place: Place) -> Path:
        if self.kind == "tuning":
            return place.tuning(self.name, self.policy)
        return place.optimum(self.name) if self.kind == "optimum" else place.runs(self.name, self.policy)


def jobs_of(suite: Suite) -> Sequence[Job]:
    tuned = [
        Job(kind="tuning", stage=0, name=training.name, policy=policy)
        for training in suite.training
        for policy in suite.policies
        if policy not in WITH_HINDSIGHT
    ]
    optima = [Job(kind="optimum", stage=0, name=cell.name) for cell in suite.cells]
    runs = [
        Job(kind="runs", stage=1, name=cell.name, policy=policy)
        for cell in suite.cells
        for policy in suite.policies
    ]
    return [*optima, *tuned, *runs]


def do(job: Job, suite: Suite, place: Place) -> str:
    """In a process of its own; returns a line for the log."""
    if job.kind == "tuning":
        training = next(one for one in suite.training if one.name == job.name)
        do_tuning(suite, training, job.policy, place)
    else:
        cell = next(one for one in suite.cells if one.name == job.name)
        if job.kind == "optimum":
            do_optimum(suite, cell, place)
        else:
            do_runs(suite, cell, job.policy, place)
    return f"{job.kind} {job.name} {job.policy}".rstrip()
