"""A cell or a training of a suite, ready to run: its traffic, its service, its setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from paceline.planner import Shape
from paceline.simulator.benchmark.suite import Cell, ServiceSpec, Suite, TrafficSpec, Training
from paceline.simulator.core import layout
from paceline.simulator.core.generators import GENERATORS, conversation, generate
from paceline.simulator.core.traffic import Pairs, Traffic
from paceline.simulator.core.traffic_files import read_rate, read_requests
from paceline.simulator.service import Service, service_of
from paceline.simulator.simulation import Faults, GoalChange, Setting
from paceline.simulator.written_values import parse_duration_s, parse_scenario, parse_sizes, parse_slo
from paceline_core.timing import StepTiming

_ROUTERS = {
    "power-of-two": layout.POWER_OF_TWO,
    "shortest-queue": layout.SHORTEST_QUEUE,
    "round-robin": layout.ROUND_ROBIN,
}


NO_FAULTS = Faults()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    traffic: Traffic
    service: Service
    setting: Setting
    seed: int
    prior: Mapping[int, StepTiming] | None = None
    first: Shape | None = None
    """Where `paceline` starts; None: as a careful user would."""
    source: str = ""
    """Where the traffic came from, as a person reads it."""


def training_scene(training: Training, suite: Suite, *, traces: Path | None) -> Scene:
    traffic, source = _traffic(training.traffic, traces=traces, seed=suite.seed)
    service = _service(training.service)
    return Scene(
        traffic=traffic,
        service=service,
        setting=_setting(service, start_time=training.start_time),
        seed=suite.seed,
        source=source,
    )


def cell_scene(cell: Cell, suite: Suite, *, traces: Path | None) -> Scene:
    traffic, source = _traffic(cell.traffic, traces=traces, seed=cell.seed)
    believed = _service(cell.service or suite.training_of(cell).service)
    service = replace(believed, timing=_scaled(believed.timing, cell.truth_scale))
    faults = Faults(
        crash_at_s=tuple(parse_duration_s(at, option="crash-at") for at in cell.faults.crash_at),
        metrics_gone=tuple(
            (
                parse_duration_s(since, option="metrics-gone"),
                parse_duration_s(until, option="metrics-gone"),
            )
            for since, until in cell.faults.metrics_gone
        ),
        lag_s=parse_duration_s(cell.faults.lag, option="lag"),
    )
    changes: tuple[GoalChange, ...] = ()
    if cell.slo_change is not None:
        changes = (
            GoalChange(
                at_s=parse_duration_s(cell.slo_change.at, option="slo-change.at"),
                targets=parse_slo(cell.slo_change.slo, option="slo-change.slo").targets,
            ),
        )
    setting = _setting(
        service,
        start_time=cell.start_time,
        faults=faults,
        goal_changes=changes,
        router=_ROUTERS[cell.router],
    )
    return Scene(
        traffic=traffic,
        service=service,
        setting=setting,
        seed=cell.seed,
        prior=_scaled(believed.timing, cell.prior_scale),
        first=None if cell.first_tp is None else service.first_shape(traffic, cell.first_tp),
        source=source,
    )


def capped(scene: Scene, max_gpus: int) -> Scene:
    service = replace(scene.service, max_gpus=max_gpus)
    return replace(
        scene,
        service=service,
        setting=replace(scene.setting, goal=service.goal, max_gpus=max_gpus),
    )


def _scaled(timing: Mapping[int, StepTiming], scale: float) -> Mapping[int, StepTiming]:
    return {size: one.corrected(scale=scale) for size, one in timing.items()}


def _service(spec: ServiceSpec) -> Service:
    return service_of(
        model=spec.model,
        format=spec.format,
        gpu=spec.gpu,
        sizes=parse_sizes(spec.tp, option="tp"),
        max_gpus=spec.max_gpus,
        slo=parse_slo(spec.slo, option="slo"),
    )


def _setting(
    service: Service,
    *,
    start_time: str,
    faults: Faults = NO_FAULTS,
    goal_changes: tuple[GoalChange, ...] = (),
    router: int = layout.POWER_OF_TWO,
) -> Setting:
    return Setting(
        timing=service.timing,
        goal=service.goal,
        max_gpus=service.max_gpus,
        start_s=parse_duration_s(start_time, option="start-time"),
        faults=faults,
        goal_changes=goal_changes,
        router=router,
    )


def _traffic(spec: TrafficSpec, *, traces: Path | None, seed: int) -> tuple[Traffic, str]:
    lengths = None
    if spec.lengths is not None and traces is not None and (traces / spec.lengths).is_file():
        read = read_requests(traces / spec.lengths)
        lengths = Pairs(prompt_tokens=read.prompt_tokens, output_tokens=read.output_tokens)
    file = spec.requests or spec.rate
    if file is not None and traces is not None and (traces / file).is_file():
        path = traces / file
        if spec.requests is not None:
            traffic = read_requests(path)
            traffic = (
                traffic.thinned(spec.scale, seed=seed)
                if spec.scale <= 1
                else traffic.multiplied(spec.scale, seed=seed)
            )
        else:
            traffic = read_rate(path, lengths or conversation(), seed=seed, scale=spec.scale)
        source = f"{file} × {spec.scale:g}"
    else:
        written = spec.synthetic or spec.fallback or ""
        name, settings = parse_scenario(written, option="synthetic", known=tuple(GENERATORS))
        scale = spec.scale if spec.synthetic is not None else 1.0
        traffic, source = generate(name, settings, seed=seed, lengths=lengths, scale=scale), written
        if spec.synthetic is None:
            return traffic, f"{source} (fallback)"
    from_s = spec.from_hours * 3600
    until_s = from_s + spec.hours * 3600 if spec.hours is not None else traffic.end_s
    return traffic.between(from_s, min(until_s, traffic.end_s)), source
