"""The clairvoyant optimum of a simulated service: curves measured by the simulator, the bound, and a certificate.

Curves cost about a minute for each service, mix and set of targets, and are kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from paceline.planner import Shape
from paceline.simulator.core.generators import arrivals
from paceline.simulator.core.traffic import Pairs, Traffic
from paceline.simulator.oracle.curves import Curve, Curves, measure_curves
from paceline.simulator.oracle.linear_programme import Bound, lower_bound
from paceline.simulator.oracle.problem import Floats, Ints, NoPlan, Plan, Problem
from paceline.simulator.oracle.schedule import shortest_plan
from paceline.simulator.policies.shapes import Planned, Still
from paceline.simulator.service import Service
from paceline.simulator.simulation import Run, Setting, simulate
from paceline_core.latency import Targets

MOST_SLOTS = 720
LEAST_SLOT_S = 60.0

CURVE_REQUESTS = 2500
WARM_UP_SHARE = 0.1
CURVE_VERSION = 2
"""One more whenever the simulator gives other times: curves of an older one are then not read."""

MIX_WINDOW_S = 900.0
ONE_MIX_RATIO = 1.35
"""Windows whose mean prompts differ by less are one mix."""

UNRESOLVED_SHARE = 0.05
BUDGET_SHARES = (1.6, 1.3, 1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slots:
    """The traffic as the optimum sees it."""

    slot_s: float
    requests: Floats
    mix: Ints
    """Which of `mixes` arrives in the slot."""
    mixes: tuple[Pairs, ...]

    @classmethod
    def of(cls, traffic: Traffic) -> Slots:
        slot_s = max(LEAST_SLOT_S, traffic.end_s / MOST_SLOTS)
        count = max(math.ceil(traffic.end_s / slot_s - 1e-9), 1)
        index = np.minimum((traffic.arrival_s // slot_s).astype(np.int64), count - 1)
        label = _mix_labels(traffic)
        mixes, of_slot = [], np.zeros(count, dtype=np.int64)
        middle = (np.arange(count) + 0.5) * slot_s
        window = np.minimum((middle // MIX_WINDOW_S).astype(np.int64), len(label) - 1)
        of_slot = label[window]
        arrived_in = label[np.minimum((traffic.arrival_s // MIX_WINDOW_S).astype(np.int64), len(label) - 1)]
        if traffic.drawn_from is not None and not label.any():
            return cls(
                slot_s=slot_s,
                requests=np.bincount(index, minlength=count).astype(float),
                mix=of_slot,
                mixes=(traffic.drawn_from,),
            )
        for one in range(int(label.max()) + 1):
            mine = arrived_in == one
            mixes.append(
                Pairs(prompt_tokens=traffic.prompt_tokens[mine], output_tokens=traffic.output_tokens[mine])
            )
        return cls(
            slot_s=slot_s,
            requests=np.bincount(index, minlength=count).astype(float),
            mix=of_slot,
            mixes=tuple(mixes),
        )


def _mix_labels(traffic: Traffic) -> Ints:
    """One label a window, 0 upwards, by its mean prompt on a logarithmic ladder; empty windows are as the last."""
    windows = max(math.ceil(traffic.end_s / MIX_WINDOW_S - 1e-9), 1)
    index = np.minimum((traffic.arrival_s // MIX_WINDOW_S).astype(np.int64), windows - 1)
    count = np.bincount(index, minlength=windows)
    total = np.bincount(index, weights=traffic.prompt_tokens.astype(float), minlength=windows)
    enough = count >= 50
    if not enough.any():
        return np.zeros(windows, dtype=np.int64)
    mean = np.where(enough, total / np.maximum(count, 1), np.nan)
    low, high = np.nanmin(mean), np.nanmax(mean)
    if high / low < ONE_MIX_RATIO:
        return np.zeros(windows, dtype=np.int64)
    rung = np.floor(np.log(mean / low) / math.log(ONE_MIX_RATIO) + 1e-9)
    last = 0.0
    for i in range(windows):
        rung[i] = last = rung[i] if enough[i] else last
    _, labels = np.unique(rung, return_inverse=True)
    return labels.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Optimum:
    bound: Bound
    slot_s: float
    plan: Plan | None = None
    certificate_gpu_hours: float | None = None
    """What a replayed plan cost that held the objective. None: none was found, or none was asked for."""
    certificate_attainment: float | None = None
    best_single_size: int | None = None
    single_size_gpu_hours: float | None = None
    """The bound with the best one size for the whole time."""

    @property
    def gpu_hours(self) -> float:
        """The curves may be a little pessimistic: what was done can be had."""
        if self.certificate_gpu_hours is None:
            return self.bound.gpu_hours
        return min(self.bound.gpu_hours, self.certificate_gpu_hours)

    @property
    def resolved(self) -> bool:
        found = self.certificate_gpu_hours
        return found is not None and found <= (1 + UNRESOLVED_SHARE) * self.bound.gpu_hours


def problem_of(traffic: Traffic, service: Service, setting: Setting, *, objective: float) -> Problem:
    slots = Slots.of(traffic)
    rates = slots.requests / slots.slot_s
    at_s = np.arange(len(rates)) * slots.slot_s
    targets = [setting.targets_at(float(t)) for t in at_s]
    curves: dict[tuple[int, Targets], Curves] = {}
    for mix, one in {(int(m), t) for m, t in zip(slots.mix, targets, strict=True)}:
        curves[mix, one] = curves_of(service, slots.mixes[mix], one, peak=float(rates.max()))
    shapes = tuple(
        Shape(tensor_parallel_size=size, replicas=n)
        for size in service.sizes
        for n in range(
            1, min(max(_highest(each, size) for each in curves.values()), service.most_replicas(size)) + 1
        )
    )
    attained = np.zeros((len(rates), len(shapes)))
    for (mix, one), each in curves.items():
        mine = np.array([m == mix and t == one for m, t in zip(slots.mix, targets, strict=True)])
        for j, shape in enumerate(shapes):
            attained[mine, j] = each.attainment(shape, rates[mine])
    return Problem(
        slot_s=slots.slot_s,
        shapes=shapes,
        misses=slots.requests[:, None] * (1 - attained),
        requests=slots.requests,
        start_s=setting.start_s,
        max_misses=(1 - objective) * float(slots.requests.sum()),
        max_gpus=service.max_gpus,
    )


def optimum_of(
    traffic: Traffic,
    service: Service,
    setting: Setting,
    *,
    objective: float,
    seed: int,
    certify: bool,
) -> Optimum:
    """NoPlan where not even the optimum reaches the objective."""
    problem = problem_of(traffic, service, setting, objective=objective)
    bound = lower_bound(problem)
    if not certify:
        return Optimum(bound=bound, slot_s=problem.slot_s)
    singles = {}
    for size in service.sizes:
        try:
            singles[size] = lower_bound(problem.of_size(size)).gpu_hours
        except NoPlan:
            continue
    best_size = min(singles, key=lambda size: singles[size], default=None)
    cost, attained, plan = _certificate(traffic, service, setting, problem, objective=objective, seed=seed)
    return Optimum(
        bound=bound,
        slot_s=problem.slot_s,
        plan=plan,
        certificate_gpu_hours=cost,
        certificate_attainment=attained,
        best_single_size=best_size,
        single_size_gpu_hours=singles[best_size] if best_size is not None else None,
    )


def _certificate(
    traffic: Traffic, service: Service, setting: Setting, problem: Problem, *, objective: float, seed: int
) -> tuple[float | None, float | None, Plan | None]:
    """Plans for ever smaller budgets of misses, until one holds the objective when it is replayed."""
    best: tuple[float | None, float | None, Plan | None] = (None, None, None)
    for share in BUDGET_SHARES:
        tighter = Problem(
            slot_s=problem.slot_s,
            shapes=problem.shapes,
            misses=problem.misses,
            requests=problem.requests,
            start_s=problem.start_s,
            max_misses=problem.max_misses * share,
            max_gpus=problem.max_gpus,
        )
        try:
            plan = shortest_plan(tighter)
        except NoPlan:
            break
        run = replay(plan, traffic, service, setting, slot_s=problem.slot_s, seed=seed)
        attained = float(run.outcomes.good.mean())
        if attained >= objective and (best[0] is None or run.gpu_hours < best[0]):
            best = (run.gpu_hours, attained, plan)
        elif attained >= objective:
            break
    return best


def replay(
    plan: Plan, traffic: Traffic, service: Service, setting: Setting, *, slot_s: float, seed: int
) -> Run:
    first = next((shape for shape in plan.shapes if shape is not None), None)
    if first is None:
        raise ValueError("a plan of nothing cannot be replayed")
    steps = asks(plan.shapes, slot_s=slot_s, start_s=setting.start_s)
    return simulate(traffic, setting, Planned(steps), first=steps[0][1], seed=seed)


def asks(shapes: Sequence[Shape | None], *, slot_s: float, start_s: float) -> list[tuple[float, Shape]]:
    """What has to be asked for when, so that the plan's shapes serve in their slots: starts are made early."""
    tick_s = min(15.0, slot_s)
    lead_s = start_s * 1.05 + tick_s
    size = next(shape.tensor_parallel_size for shape in shapes if shape is not None)
    asked: list[tuple[float, Shape]] = []
    for tick in range(math.ceil(len(shapes) * slot_s / tick_s)):
        at_s = tick * tick_s
        here = min(int(at_s // slot_s), len(shapes) - 1)
        until = min(int((at_s + lead_s) // slot_s), len(shapes) - 1)
        ahead = shapes[here : until + 1]
        change = next((one for one in ahead if one is not None and one.tensor_parallel_size != size), None)
        if change is not None:
            size = change.tensor_parallel_size
        replicas = max(
            (one.replicas for one in ahead if one is not None and one.tensor_parallel_size == size), default=0
        )
        shape = Shape(tensor_parallel_size=size, replicas=replicas)
        if not asked or asked[-1][1] != shape:
            asked.append((at_s, shape))
    return asked


def _highest(curves: Curves, size: int) -> int:
    return max(curve.replicas for curve in curves.by_size[size])


def curves_of(service: Service, mix: Pairs, targets: Targets, *, peak: float) -> Curves:
    """From the cache as far as it goes; what is missing for `peak` is measured now."""
    counts = {
        size: [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if n <= service.most_replicas(size)]
        for size in service.sizes
    }
    path = _cache_path(service, mix, targets)
    known = _from_json(path.read_text(encoding="utf-8")) if path.is_file() else None

    def measure(shape: Shape, rate: float) -> float:
        return static_attainment(service, mix, targets, shape, rate)

    curves = measure_curves(measure, counts, peak=peak, known=known)
    if known is None or curves.by_size != known.by_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(_to_json(curves), encoding="utf-8")
        partial.replace(path)
    return curves


def static_attainment(
    service: Service,
    mix: Pairs,
    targets: Targets,
    shape: Shape,
    rate: float,
    *,
    requests: int = CURVE_REQUESTS,
) -> float:
    """Of a shape that stands still under Poisson arrivals, without the first requests, which find it empty."""
    span_s = requests / rate
    traffic = arrivals(np.array([0.0, span_s]), np.array([rate, rate]), mix, seed=17)
    goal = service.goal
    setting = Setting(
        timing=service.timing,
        goal=type(goal)(**{**{name: getattr(goal, name) for name in goal.__slots__}, "targets": targets}),
        max_gpus=max(shape.gpus, 8) + 8,
        start_s=0.0,
        cached_share=service.cached_share,
    )
    run = simulate(traffic, setting, Still(shape), first=shape, seed=1)
    good = run.outcomes.good
    return float(good[int(len(good) * WARM_UP_SHARE) :].mean())


def _cache_path(service: Service, mix: Pairs, targets: Targets) -> Path:
    said = json.dumps(
        [
            CURVE_VERSION,
            CURVE_REQUESTS,
            {size: asdict(one) for size, one in sorted(service.timing.items())},
            service.max_sequences,
            service.max_batched_tokens,
            service.cached_share,
            targets.to_json(),
        ],
        sort_keys=True,
    )
    digest = hashlib.sha256(said.encode())
    digest.update(np.ascontiguousarray(mix.prompt_tokens).tobytes())
    digest.update(np.ascontiguousarray(mix.output_tokens).tobytes())
    cache = Path(os.environ.get("PACELINE_CACHE") or Path.home() / ".cache" / "paceline")
    return cache / "simulator" / "curves" / f"{digest.hexdigest()[:24]}.json"


def _to_json(curves: Curves) -> str:
    return json.dumps(
        {
            str(size): [
                {"replicas": one.replicas, "rates": one.rates, "attainment": one.attainment} for one in each
            ]
            for size, each in curves.by_size.items()
        }
    )


def _from_json(text: str) -> Curves:
    return Curves(
        by_size={
            int(size): tuple(
                Curve(
                    replicas=one["replicas"],
                    rates=tuple(one["rates"]),
                    attainment=tuple(one["attainment"]),
                )
                for one in each
            )
            for size, each in json.loads(text).items()
        }
    )
