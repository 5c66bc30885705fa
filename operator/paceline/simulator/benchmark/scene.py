"""A cell or a training of a suite, ready to run: its traffic, its service, its setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from paceline.planner import Shape
from paceline.simulator.benchmark.suite import Cell, ServiceSpec, Suite, TrafficSpec, Training
from paceline.simulator.core import layout
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.service import Service, service_of
from paceline.simulator.simulation import Faults, GoalChange, Setting
from paceline.simulator.traffic_source import TrafficSource
from paceline.simulator.written_values import parse_duration_s, parse_sizes, parse_slo
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
    service = replace(believed, timing=_true(believed.timing, cell), cached_share=cell.cached_share)
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
        exact_latencies=cell.exact_latencies,
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


def _true(timing: Mapping[int, StepTiming], cell: Cell) -> Mapping[int, StepTiming]:
    given = cell.truth_overhead
    overhead_s = None if given is None else parse_duration_s(given, option="truth-overhead")
    return {
        size: one.corrected(scale=cell.truth_scale, overhead_s=overhead_s) for size, one in timing.items()
    }


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
    exact_latencies: bool = False,
) -> Setting:
    return Setting(
        timing=service.timing,
        goal=service.goal,
        max_gpus=service.max_gpus,
        start_s=parse_duration_s(start_time, option="start-time"),
        faults=faults,
        goal_changes=goal_changes,
        router=router,
        exact_latencies=exact_latencies,
        cached_share=service.cached_share,
    )


def _traffic(spec: TrafficSpec, *, traces: Path | None, seed: int) -> tuple[Traffic, str]:
    def there(name: str | None) -> Path | None:
        path = traces / name if name is not None and traces is not None else None
        return path if path is not None and path.is_file() else None

    file = spec.requests or spec.rate
    if file is not None and there(file) is None:
        found = TrafficSource(synthetic=spec.fallback, lengths=there(spec.lengths)).read(seed=seed)
        return found, f"{spec.fallback} (fallback)"
    source = TrafficSource(
        requests=there(spec.requests),
        rate=there(spec.rate),
        lengths=there(spec.lengths),
        synthetic=spec.synthetic,
        rate_noise=spec.rate_noise,
        from_hours=spec.from_hours,
        hours=spec.hours,
        scale=spec.scale,
    )
    return source.read(seed=seed), spec.synthetic or f"{file} × {spec.scale:g}"
