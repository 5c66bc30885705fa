"""What a benchmark found: a report in Markdown, one CSV of every run, and pictures.

A policy's figure in a cell is that of its cheapest frontier point that held the objective there. A policy without
such a point has no figure; a cell with too few requests, or without a schedule that reaches the target, makes no
claim. The report reads result files alone and can be made again at any time.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paceline.simulator.benchmark.cell_results import CellResults, headroom_closed, rivalries_of
from paceline.simulator.benchmark.interval import LEVEL, Interval, bootstrap_median
from paceline.simulator.benchmark.plots import FleetTrace, FrontierPoint, plot_frontiers, plot_timeline
from paceline.simulator.benchmark.scene import cell_scene
from paceline.simulator.benchmark.suite import Suite
from paceline.simulator.benchmark.targets import targets_of
from paceline.simulator.benchmark.work import Place, read
from paceline.simulator.policies.named import OURS, OURS_FIXED

Result = dict[str, Any]


def write_report(suite: Suite, place: Place) -> Path:
    results, dropped, unfinished = _collect(suite, place)
    pictures = place.out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    _write_csv(place.out / "runs.csv", results)
    for one in results:
        _draw(one, suite, place, pictures)
    lines = [
        f"# Simulated: suite `{suite.name}`",
        "",
        "Every figure below is **simulated**: traffic replayed against a model of the GPUs. Nothing was measured on a "
        f"GPU. {len(results)} cells; {suite.trials} tuning trials a policy; {suite.frontier_points} points a frontier; "
        "GPU-hours count from a pod's creation to its end.",
        "",
        *_cells(results, dropped, unfinished),
        *_verdicts(suite, results, _capped(suite, place)),
        *_targets(suite, results),
        *_switches(results),
        *(line for one in results for line in _cell(one)),
    ]
    path = place.out / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _collect(suite: Suite, place: Place) -> tuple[list[CellResults], list[Result], list[str]]:
    results, dropped, unfinished = [], [], []
    for cell in suite.cells:
        if not place.optimum(cell.name).is_file():
            unfinished.append(cell.name)
            continue
        optimum = read(place.optimum(cell.name))
        if optimum["dropped"] is not None:
            dropped.append(optimum)
            continue
        found = {
            name: read(place.runs(cell.name, name))
            for name in suite.policies_of(cell)
            if place.runs(cell.name, name).is_file()
        }
        if len(found) < len(suite.policies_of(cell)):
            unfinished.append(cell.name)
        if found:
            results.append(CellResults(cell=cell, optimum=optimum, policies=found))
    return results, dropped, unfinished


def _cells(results: Sequence[CellResults], dropped: Sequence[Result], unfinished: Sequence[str]) -> list[str]:
    lines = [
        "## Cells",
        "",
        "Bound: linear programme over measured attainment curves. Certificate: a schedule made with the traffic known, "
        "replayed, that held the objective. More than 5 % apart: unresolved.",
        "",
        "| cell | traffic | hours | requests | objective | bound, GPU-h | best one TP | certificate | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        o = one.optimum
        single = (
            f"TP{o['best_single_tp']} {_number(o['single_tp_bound_gpu_hours'])}"
            if o["best_single_tp"]
            else "–"
        )
        remarks = [] if o["resolved"] else ["unresolved"]
        remarks += [] if one.claims else ["too few requests for a claim"]
        lines.append(
            f"| {one.cell.name} | {o['traffic']} | {o['hours']:.1f} | {o['requests']} | {100 * one.objective:g} % | "
            f"{one.bound:.2f} | {single} | {_number(o['certificate_gpu_hours'])} | {', '.join(remarks)} |"
        )
    lines += [f"\nDropped: {o['cell']}: {o['dropped']}" for o in dropped]
    if unfinished:
        lines.append(f"\nNot finished: {', '.join(unfinished)}.")
    return [*lines, ""]


def _capped(suite: Suite, place: Place) -> list[Result]:
    """Cells whose cap keeps even the optimum from the objective: ours as shipped against the best that can be had."""
    found = []
    for cell in suite.cells:
        runs = place.runs(cell.name, OURS)
        if not place.optimum(cell.name).is_file() or not runs.is_file():
            continue
        best = read(place.optimum(cell.name)).get("best_attainment")
        if best is not None:
            found.append(
                {"cell": cell.name, "best": best, "ours": read(runs)["shipped"]["attainment"] or 0.0}
            )
    return found


def _verdicts(suite: Suite, results: Sequence[CellResults], capped: Sequence[Result]) -> list[str]:
    lines = ["## What was to be shown", "", "| target | figure | |", "|---|---|---|"]
    lines += [
        f"| {one.name} | {one.figure} | **{one.verdict}** |"
        for one in targets_of(results, capped, seed=suite.seed)
    ]
    varied = [one for one in results if one.cell.kind == "variation"]
    if varied:
        lines += ["", "In other worlds (does ours still cost less than the best tuned rival?):", ""]
        for one in varied:
            ours, rival = one.at_target(OURS), one.best_rival()
            verdict = (
                "ours does not hold"
                if ours is None
                else "no rival holds"
                if rival is None
                else ("yes" if ours["gpu_hours"] <= rival[1]["gpu_hours"] else "it flips")
            )
            lines.append(
                f"* {one.cell.name}: {verdict} ({_point(ours)} against {_point(rival[1] if rival else None)})"
            )
    return [*lines, ""]


def _targets(suite: Suite, results: Sequence[CellResults]) -> list[str]:
    lines = [
        "## Against the best tuned rival",
        "",
        "Headroom closed: (rival − ours) / (rival − bound).",
        "",
        "| cell | ours, GPU-h | best rival, GPU-h | fewer GPU-hours | headroom closed | ours / bound | "
        "ours with the best fixed TP |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results:
        if not one.has_frontiers:
            continue
        ours, rival = one.at_target(OURS), one.best_rival()
        fixed = one.at_target(OURS_FIXED)
        lines.append(
            f"| {one.cell.name} | {_point(ours)} | {f'{rival[0]} {_point(rival[1])}' if rival else 'none held'} | "
            f"{_percent(1 - ours['gpu_hours'] / rival[1]['gpu_hours']) if ours and rival else '–'} | "
            f"{_percent(headroom_closed(ours['gpu_hours'], rival[1]['gpu_hours'], one.bound)) if ours and rival else '–'} | "
            f"{_number(ours['gpu_hours'] / one.bound if ours else None)} | {_point(fixed)} |"
        )
    blocks = [one.blocks for one in rivalries_of(results)]
    if blocks:
        interval = bootstrap_median(
            blocks, lambda row: headroom_closed(row[0], row[1], row[2]), seed=suite.seed
        )
        saved = bootstrap_median(blocks, lambda row: float(1 - row[0] / row[1]), seed=suite.seed)
        lines += [
            "",
            f"Median cell of {len(blocks)} in which a rival holds the objective: headroom closed "
            f"{_interval(interval)}, fewer GPU-hours {_interval(saved)} ({100 * LEVEL:.0f} % interval from blocks of 6 h).",
        ]
    return [*lines, ""]


def _switches(results: Sequence[CellResults]) -> list[str]:
    lines = [
        f"| {one.cell.name} | {other['at_s'] / 3600:.2f} | TP{other['old']} → TP{other['new']} | "
        f"{_short(one.policies[OURS]['shipped'])} | {_short(other)} |"
        for one in results
        if OURS in one.policies
        for other in one.policies[OURS]["without_switch"]
    ]
    if not lines:
        return []
    return [
        "## Changes of the TP",
        "",
        "Ours as shipped, and the same run where that one change was not allowed.",
        "",
        "| cell | at, h | change | with it | without it |",
        "|---|---|---|---|---|",
        *lines,
        "",
    ]


def _short(point: Result) -> str:
    return f"{point['gpu_hours']:.2f} GPU-h, {100 * (point['attainment'] or 0.0):.2f} %"


def _cell(one: CellResults) -> list[str]:
    head = "| policy | dials | attainment | GPU-hours | / bound | changes | reversals | TP switches | decision, ms |"
    rule = "|---|---|---|---|---|---|---|---|---|"
    lines = [f"## {one.cell.name}", "", f"![timeline](pictures/{one.cell.name}-timeline.png)", ""]
    if one.has_frontiers:
        lines += [f"![frontiers](pictures/{one.cell.name}-frontiers.png)", "",
                  "At the cheapest point that held the objective (or, in brackets, the highest attainment reached):",
                  "", head, rule]  # fmt: skip
        for name in _by_cost(one):
            body = one.policies[name]
            point = one.at_target(name)
            shown = point or max([*body["frontier"], body["shipped"]], key=lambda p: p["attainment"] or 0.0)
            lines.append(_row(name, shown, one.bound, missed=point is None))
        lines.append("")
    lines += ["As shipped:", "", head, rule]
    lines += [_row(name, one.policies[name]["shipped"], one.bound, missed=False) for name in _by_cost(one)]
    return [*lines, ""]


def _by_cost(one: CellResults) -> Iterable[str]:
    def key(name: str) -> tuple[bool, float]:
        point = one.at_target(name)
        return point is None, point["gpu_hours"] if point else 0.0

    return sorted(one.policies, key=key)


def _row(name: str, point: Result, bound: float, *, missed: bool) -> str:
    dials = ", ".join(f"{key} {value:g}" for key, value in point["settings"].items()) or "–"
    attained = f"{100 * (point['attainment'] or 0.0):.2f} %"
    per_second = point["decisions_per_second"]
    return (
        f"| {name} | {dials} | {f'({attained})' if missed else attained} | {point['gpu_hours']:.2f} | "
        f"{point['gpu_hours'] / bound:.2f} | {point['shape_changes']} | {point['reversals_within_10_min']} | "
        f"{point['tp_switches']} | {f'{1000 / per_second:.2f}' if per_second else '–'} |"
    )


def _write_csv(path: Path, results: Sequence[CellResults]) -> None:
    columns = (
        "gpu_hours", "attainment", "requests", "failed", "window_attainment", "worst_window_attainment",
        "shape_changes", "reversals_within_10_min", "tp_switches", "time_to_recover_s",
        "decisions_per_second", "wall_s",
    )  # fmt: skip
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "policy", "kind", "settings", "bound_gpu_hours", *columns])
        for one in results:
            for name, body in one.policies.items():
                for kind, point in [
                    ("shipped", body["shipped"]),
                    *(("frontier", p) for p in body["frontier"]),
                ]:
                    dials = ";".join(f"{key}={value:g}" for key, value in point["settings"].items())
                    writer.writerow(
                        [one.cell.name, name, kind, dials, one.bound, *(point[c] for c in columns)]
                    )


def _draw(one: CellResults, suite: Suite, place: Place, pictures: Path) -> None:
    title = f"{one.cell.name} (simulated)"
    if one.has_frontiers:
        plot_frontiers(
            pictures / f"{one.cell.name}-frontiers.png",
            title=title,
            frontiers={
                name: [
                    FrontierPoint(gpu_hours=p["gpu_hours"], attainment=p["attainment"] or 0.0)
                    for p in (body["frontier"] or [body["shipped"]])
                ]
                for name, body in one.policies.items()
            },
            objective=one.objective,
            bound_gpu_hours=one.bound,
        )
    traffic = cell_scene(one.cell, suite, traces=place.traces).traffic
    window_s = max(60.0, traffic.end_s / 600)
    counted = np.bincount((traffic.arrival_s // window_s).astype(int))
    shown = {OURS: one.at_target(OURS) or (one.policies[OURS]["shipped"] if OURS in one.policies else None)}
    rival = one.best_rival()
    if rival:
        shown[rival[0]] = rival[1]
    fleets = {
        name: FleetTrace(
            at_s=[*point["gpu_trace"]["at_s"], traffic.end_s],
            gpus=[*point["gpu_trace"]["gpus"], point["gpu_trace"]["gpus"][-1]],
            tensor_parallel_sizes=[*point["gpu_trace"]["sizes"], point["gpu_trace"]["sizes"][-1]],
        )
        for name, point in shown.items()
        if point is not None
    }
    plot_timeline(
        pictures / f"{one.cell.name}-timeline.png",
        title=title,
        rate_at_s=[i * window_s for i in range(len(counted))],
        requests_per_s=(counted / window_s).tolist(),
        fleets=fleets,
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _point(point: Result | None) -> str:
    return "did not hold" if point is None else f"{point['gpu_hours']:.2f}"


def _percent(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{100 * value:.0f} %"


def _interval(interval: Interval) -> str:
    value = _percent(interval.value)
    if interval.low is None or interval.high is None:
        return f"{value} (one block a cell: no interval)"
    return f"{value} [{_percent(interval.low)}, {_percent(interval.high)}]"
