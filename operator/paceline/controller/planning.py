"""Between the planner's words and the fleet's: goal and inventory out, advice back. Pure; the decision loop
calls it.

The fleet knows no planner and the planner no Kubernetes: this is the only file that knows both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from paceline.api import BurnRate, InferenceService, Shape
from paceline.fleet import Observed
from paceline.fleet.advice import METRICS_UNKNOWN, Choice, Measured, MetricsWord
from paceline.fleet.feasibility import known_facts, refusal_before_start
from paceline.fleet.gpu_ledger import placed_gpus
from paceline.fleet.in_place import offer, pod_layout, told_variants
from paceline.fleet.inventory import Amounts, Rooms, rooms
from paceline.fleet.quota import gpus_left
from paceline.fleet.roles import is_active
from paceline.fleet.shape import active_override, refused_now
from paceline.fleet.straggler import Pace, Straggler, slowest
from paceline.metrics import ClusterFacts, ServiceMetrics, observe
from paceline.planner import Decision, Goal, Grant, InPlace, NodeGpus, Observation, Quantiles, StartTime
from paceline.planner import Shape as PlannerShape
from paceline_core import Layout
from paceline_core.fit import possible_tensor_parallel_sizes

MAX_REPLICAS = 1000
"""Where the spec has no bounds: the inventory and the budget limit."""

VLLM_BATCHED_TOKENS = 8192
"""vLLM's own choice on the GPUs of the tables where `spec.runtime.maxBatchedTokens` is absent (0.32, V1
engine, API server)."""


def decides(observed: Observed) -> bool:
    """Whether the planner has a say, or is at least asked."""
    spec = observed.service.spec
    return spec.scaling.mode != "Manual" and not spec.paused and active_override(observed) is None


def observation_of(
    observed: Observed,
    metrics: ServiceMetrics,
    *,
    standing: Shape,
    possible: tuple[int, ...],
    nodes: tuple[NodeGpus, ...],
    quotas: Iterable[Mapping[str, Any]] | None,
    start_times: tuple[StartTime, ...],
    grant: Grant | None = None,
) -> Observation:
    """`standing` is the shape that is asked for now; `possible` are the sizes that may be chosen; the current
    one always may: to stay must be a choice. `quotas` are those of the namespace. Where they are unknown (None), the
    service keeps what it has and takes no more."""
    quota_gpus = gpus_left(observed.service, quotas) if quotas is not None else 0
    transition = observed.status.transition if observed.status is not None else None
    current = standing.tensor_parallel_size
    layout = pod_layout(told_variants(observed), tensor_parallel_size=current)
    sizes = tuple(sorted({current, *possible}))
    return observe(
        metrics,
        now_s=observed.now_s,
        goal=goal_of(observed, sizes=sizes),
        cluster=ClusterFacts(
            pods=observed.pods,
            nodes=nodes,
            quota_gpus=quota_gpus,
            grant=grant,
            start_times=start_times,
            current=in_whole_pods(standing, layout),
            replicas_per_pod=layout.data_parallel_size,
            in_place=in_place_of(observed),
            changing=is_active(transition),
            refused=tuple(planner_shape(one) for one in refused_now(observed)),
            no_room_beside=no_room_beside(nodes=nodes, quota_gpus=quota_gpus, sizes=sizes, current=current),
        ),
    )


def goal_of(observed: Observed, *, sizes: tuple[int, ...]) -> Goal:
    service = observed.service
    scaling, transition, runtime = service.spec.scaling, service.spec.transition, service.spec.runtime
    bounds, budget = scaling.replica_bounds, scaling.gpu_budget
    return Goal(
        targets=service.spec.slo.targets(),
        objective=float(service.spec.slo.objective_percent) / 100,
        allowed_tensor_parallel_sizes=sizes,
        min_replicas=bounds.min if bounds is not None else 1,
        max_replicas=bounds.max if bounds is not None else MAX_REPLICAS,
        max_gpus=budget.max if budget is not None else None,
        spare_replicas=scaling.spare_replicas,
        scale_down_stabilization_s=float(scaling.scale_down.stabilization_seconds),
        min_dwell_s=float(transition.min_dwell_seconds),
        max_sequences=runtime.max_sequences,
        max_batched_tokens=runtime.max_batched_tokens or VLLM_BATCHED_TOKENS,
        idle_s=float(idle) if (idle := scaling.idle_seconds) is not None else None,
        hold_s=float(service.spec.hold_seconds),
    )


def waking_size(service: InferenceService, *, current: int) -> int:
    """The tensor-parallel size that a service at zero wakes with: the one it had, unless the spec has come to
    exclude it."""
    scaling = service.spec.scaling
    allowed = scaling.allowed_tensor_parallel_sizes
    return current if not allowed or current in allowed else scaling.tensor_parallel_size


def possible_sizes(observed: Observed, *, timed: Collection[int]) -> tuple[int, ...]:
    """Tensor-parallel sizes that the spec allows, the checkpoint can be split into, and `timed` knows."""
    scaling = observed.service.spec.scaling
    emulated = observed.service.spec.runtime.emulation is not None
    facts = known_facts(observed)
    possible: tuple[int, ...] = ()
    if scaling.allowed_tensor_parallel_sizes:
        possible = scaling.allowed_tensor_parallel_sizes
    elif emulated:
        possible = tuple(timed)
    elif facts is not None:
        possible = possible_tensor_parallel_sizes(facts)
    if observed.service.spec.accelerator.resource_name.startswith("nvidia.com/mig-"):
        possible = (1,)
    return tuple(
        size
        for size in sorted(set(possible))
        if size in timed and refusal_before_start(observed, tensor_parallel_size=size) is None
    )


def inventory(observed: Observed, *, requested: Mapping[str, Amounts]) -> tuple[NodeGpus, ...]:
    """`requested` is what all pods of the cluster hold, by node."""
    return node_gpus(rooms(observed.service, nodes=observed.nodes, requested=requested))


def node_gpus(found: Rooms) -> tuple[NodeGpus, ...]:
    return tuple(
        NodeGpus(total=total, free=free, count=count) for (total, free), count in found.alike.items()
    )


def own_requests(services: Iterable[Observed]) -> Mapping[str, Amounts]:
    """GPUs that the pods of these services hold, by node."""
    held: dict[str, dict[str, float]] = {}
    for observed in services:
        name = observed.service.spec.accelerator.resource_name
        for node, gpus in placed_gpus(observed.pods).items():
            of_node = held.setdefault(node, {})
            of_node[name] = of_node.get(name, 0.0) + gpus
    return held


def no_room_beside(
    *, nodes: tuple[NodeGpus, ...], quota_gpus: int | None, sizes: tuple[int, ...], current: int
) -> tuple[PlannerShape, ...]:
    """The smallest shape of each other size that does not fit beside the present one."""
    most = {
        size: sum(node.count * (node.free // size) for node in nodes) for size in sizes if size != current
    }
    if quota_gpus is not None:
        most = {size: min(count, quota_gpus // size) for size, count in most.items()}
    return tuple(PlannerShape(tensor_parallel_size=size, replicas=count + 1) for size, count in most.items())


def in_place_of(observed: Observed) -> InPlace | None:
    """What a change within the pods would take; None where there is none to be had."""
    spec, found = observed.service.spec, offer(observed)
    if found is None:
        return None
    return InPlace(
        pods=found.pods,
        gpus_per_pod=found.gpus_per_pod,
        away_s=found.away_s,
        max_hold_s=float(spec.transition.max_hold_seconds),
        most_held=spec.router.hold.max_requests * spec.router.replicas,
    )


def unheard_layout(observed: Observed) -> str | None:
    """Why figures cannot be told apart by size, and pods not be counted: one does not say what it serves in."""
    for pod in observed.pods:
        if pod.component == "engine" and pod.serving and pod.serves_in is None:
            return f"pod {pod.name} was told another layout and has not said yet what it serves in (GET /paceline/info)."
    return None


def in_whole_pods(shape: Shape, layout: Layout) -> PlannerShape:
    """A pod comes and goes with all replicas that it holds."""
    pods = -(-shape.replicas // layout.data_parallel_size)
    return PlannerShape(
        tensor_parallel_size=shape.tensor_parallel_size, replicas=pods * layout.data_parallel_size
    )


def planner_shape(shape: Shape) -> PlannerShape:
    return PlannerShape(tensor_parallel_size=shape.tensor_parallel_size, replicas=shape.replicas)


def fleet_shape(shape: PlannerShape) -> Shape:
    return Shape(tensor_parallel_size=shape.tensor_parallel_size, replicas=shape.replicas)


def is_followed(observed: Observed, metrics: ServiceMetrics, decision: Decision) -> bool:
    """Whether the fleet will go where the decision says: what is not followed must take nothing from others."""
    if observed.service.spec.scaling.mode != "Auto":
        return False
    if decision.reason in ("Idle", "RequestHeld"):
        return True
    return metrics_word(metrics).usable and decision.reason != METRICS_UNKNOWN


def choice_of(decision: Decision, *, seen: Shape) -> Choice:
    return Choice(
        seen=seen,
        shape=fleet_shape(decision.shape),
        reason=decision.reason,
        message=decision.message,
        limit=None if decision.limit == "None" else decision.limit,
        feasible=decision.feasible,
        predicted_attainment=decision.predicted.attainment if decision.predicted is not None else None,
        in_place=decision.in_place,
    )


def metrics_word(metrics: ServiceMetrics) -> MetricsWord:
    available = metrics.availability
    return MetricsWord(
        usable=available.available is True or metrics.source == "Pods",
        status="Unknown" if available.available is None else "True" if available.available else "False",
        reason=available.reason,
        message=available.message,
    )


def slowest_pod(observed: Observed, metrics: ServiceMetrics) -> Straggler | None:
    """By this look. Without all of the metrics nobody is judged."""
    if metrics.availability.available is not True:
        return None
    paces = {
        name: Pace(mean_s=figure.fresh, tokens=figure.samples)
        for name, figure in metrics.pod_inter_token_latency.items()
        if figure.fresh is not None and figure.samples is not None
    }
    return slowest(observed, paces)


def measured(
    service: InferenceService,
    metrics: ServiceMetrics,
    *,
    size: int,
    budget_remaining: float | None,
    burn_rates: tuple[BurnRate, ...],
) -> Measured:
    """Latency by the percentile that the objective stands for: of an objective of 99 %, the slowest 1 %."""
    objective = float(service.spec.slo.objective_percent)
    engines = metrics.engines.get(size)
    attainment = metrics.attainment
    return Measured(
        attainment=attainment.fresh,
        samples=int(attainment.samples) if attainment.samples is not None else None,
        budget_remaining=budget_remaining,
        burn_rates=burn_rates,
        time_to_first_token_s=_at(metrics.client_time_to_first_token, objective),
        time_per_output_token_s=_at(engines.time_per_output_token, objective) if engines else None,
    )


def _at(quantiles: Quantiles, objective_percent: float) -> float | None:
    figure = quantiles.p99_s if objective_percent >= 97 else quantiles.p95_s
    return figure.fresh
