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
from paceline.simulator.benchmark.run_result import block_count, result_of, run_of, without_each_switch
from paceline.simulator.benchmark.scene import Scene, capped, cell_scene, training_scene
from paceline.simulator.benchmark.suite import Cell, Suite, Training
from paceline.simulator.benchmark.tuning import Score, best, tune, walk
from paceline.simulator.hindsight import beaten
from paceline.simulator.oracle.optimum import optimum_of
from paceline.simulator.oracle.problem import NoPlan
from paceline.simulator.policies.knob import Settings
from paceline.simulator.policies.named import NAMES, OURS, OURS_FIXED, STANDING, knobs_of


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
    if path.is_file():
        return
    scene = training_scene(training, suite, traces=place.traces)
    objective = scene.service.slo.objective

    allowed = (1 - objective) * len(scene.traffic)

    def evaluate(settings: Settings, cheapest: float | None) -> Score:
        give_up = None if cheapest is None else beaten(gpu_hours=cheapest, misses=allowed)
        run = run_of(policy, scene, settings, give_up=give_up)
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
    blocks = block_count(scene.traffic.end_s)
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
    if policy in STANDING:
        write(
            path,
            {
                "policy": policy,
                "cell": cell.name,
                "shipped": result_of(run_of(policy, scene, {}), scene, {}),
                "frontier": [],
            },
        )
        return
    knobs = knobs_of(policy, scene.service, scene.traffic)
    made: dict[tuple[tuple[str, float], ...], dict[str, Any]] = {}
    body: dict[str, Any] = {"policy": policy, "cell": cell.name}

    def made_of(settings: Settings) -> dict[str, Any]:
        key = tuple(sorted(settings.items()))
        if key not in made:
            run = run_of(policy, scene, settings)
            made[key] = result_of(run, scene, settings)
            if policy == OURS and "shipped" not in body:
                body["without_switch"] = without_each_switch(run, scene, settings)
        return made[key]

    body["shipped"] = made_of({knob.name: knob.default for knob in knobs})
    body["frontier"] = []
    points = suite.frontier_points_of(cell)
    if points:
        tuned_as = OURS if policy == OURS_FIXED else policy
        won: dict[str, float] = read(place.tuning(cell.trained_on, tuned_as))["won"]
        dial, objective = knobs[0], scene.service.slo.objective

        def holds(value: float) -> bool:
            body["frontier"].append(made_of({**won, dial.name: value}))
            return (body["frontier"][-1]["attainment"] or 0.0) >= objective

        walk(dial, won[dial.name], holds, points=1 if policy == OURS_FIXED else points)
        body["tuned"] = won
    write(path, body)


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
    """Ours first, which take longest, so that no process waits for the last one alone. One optimum runs beside the
    tuning: those after it find most of their curves in the cache, which two at a time would both measure."""
    wanted = [(cell, policy) for cell in suite.cells for policy in suite.policies_of(cell)]
    tuned = {
        (cell.trained_on, OURS if policy == OURS_FIXED else policy)
        for cell, policy in wanted
        if suite.frontier_points_of(cell) and policy not in STANDING
    }
    optima = [Job(kind="optimum", stage=0, name=cell.name) for cell in suite.cells]
    tuning = [Job(kind="tuning", stage=0, name=name, policy=policy) for name, policy in sorted(tuned)]
    order = sorted(wanted, key=lambda pair: NAMES.index(pair[1]))
    runs = [Job(kind="runs", stage=1, name=cell.name, policy=policy) for cell, policy in order]
    return [*optima[:1], *tuning, *optima[1:], *runs]


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
