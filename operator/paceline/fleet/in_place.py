"""The change of layout inside the pods: the same pods, on the same GPUs, with another tensor-parallel size.

    one pod of 8 GPUs:   tp=8,dp=1  ──▶  tp=4,dp=2  ──▶  tp=2,dp=4

Freed GPUs go to whatever pod is Pending, so on a full node a surge cannot begin and a plain replacement cannot be
undone. Here none is freed. The Deployment bears the layout that its pods are to have, each pod the order it was given;
the pod's own word says what it serves in. Who is told, and when, follows from these three:

    order = wanted, serves in it         as it should be
    order = wanted, does not yet         under way: no other is told meanwhile
    order ≠ wanted, not Ready            told at once: nothing is lost by it
    order ≠ wanted, Ready                told when nothing else is under way or is leaving

`transition` calls it for the steps, `plan` for the orders. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from paceline.api import Refused, Shape, TransitionStatus
from paceline.fleet.actions import Reshape
from paceline.fleet.observed import Observed, Pod
from paceline.fleet.replicas import Surroundings, disturbance
from paceline.fleet.roles import RESHAPING, ROLLING_BACK
from paceline.fleet.variant import Inputs, Variant, observed_variants, template_inputs
from paceline_core import QUIET_S, UNROUTING_BOUND_S, Layout, LayoutOrder

LAYOUT_REFUSED = "LayoutRefused"

ROUTING_S = QUIET_S + 10
"""What a hold lasts beyond the pod's last requests and its start: the quiet before it stops accepting, two probes of
the kubelet, and the routers' way to see it again (up to 5 s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the spec allows."""

    enabled: bool
    max_hold_s: int
    max_request_s: int
    ready_deadline_s: float

    @property
    def pod_allowance_s(self) -> float:
        """For one pod from its order to Ready, its longest request included."""
        return UNROUTING_BOUND_S + self.max_request_s + self.ready_deadline_s


def is_in_place(transition: TransitionStatus | None) -> bool:
    return transition is not None and transition.to_layout is not None


def wanted_layout(variant: Variant, transition: TransitionStatus | None) -> Layout:
    """What its pods are to have: by the step that was written, else by its Deployment."""
    if transition is None or transition.from_variant != variant.name or not is_in_place(transition):
        return variant.layout
    text = None
    if transition.step == RESHAPING:
        text = transition.to_layout
    elif transition.step == ROLLING_BACK:
        text = transition.from_layout
    return Layout.parse(text) if text is not None else variant.layout


def told_variants(observed: Observed) -> tuple[Variant, ...]:
    """The service's variants, each with the layout that its pods are to have."""
    transition = observed.status.transition if observed.status is not None else None
    return tuple(replace(one, layout=wanted_layout(one, transition)) for one in observed_variants(observed))


def pod_layout(variants: Iterable[Variant], *, tensor_parallel_size: int) -> Layout:
    """How the pods of that size divide their GPUs; without any, as a new one would."""
    same = [one for one in variants if one.tensor_parallel_size == tensor_parallel_size]
    largest = max(same, key=lambda one: (one.replicas, one.created_at_s), default=None)
    return largest.layout if largest is not None else Layout(tensor_parallel_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a change in place takes, to whatever size it is."""

    pods: int
    gpus_per_pod: int
    away_s: float
    """How long a pod is away beyond its last requests, by the slowest of their last starts."""


def offer(observed: Observed) -> Offer | None:
    """None where the pods may not be changed, or cannot, or not now."""
    service = observed.service
    alive = [one for one in told_variants(observed) if one.replicas]
    if service.spec.transition.in_place != "Enabled" or len(alive) != 1:
        return None
    (current,) = alive
    inputs = template_inputs(service, tensor_parallel_size=current.tensor_parallel_size)
    starts_s = [_start_s(pod) for pod in current.serving if pod.serves_in == current.layout]
    known_s = [one for one in starts_s if one is not None]
    if _unchangeable(current, inputs=inputs) is not None or not 0 < current.replicas == len(known_s):
        return None
    return Offer(pods=current.replicas, gpus_per_pod=current.gpus_per_pod, away_s=max(known_s) + ROUTING_S)


def layout_for(current: Variant, asked: Shape) -> Layout | None:
    return Layout.dividing(current.gpus_per_pod, tensor_parallel_size=asked.tensor_parallel_size)


def why_not(
    current: Variant, *, inputs: Inputs, asked: Shape, terms: Terms, around: Surroundings
) -> str | None:
    """What keeps its pods from changing to the shape that is asked for; None if nothing does."""
    layout = layout_for(current, asked)
    gpus = current.gpus_per_pod
    if not terms.enabled:
        return "spec.transition.inPlace is Disabled"
    if (reason := _unchangeable(current, inputs=inputs)) is not None:
        return reason
    if layout is None:
        return f"size {asked.tensor_parallel_size} does not divide the {gpus} GPUs of a pod"
    pods, rest = divmod(asked.replicas, layout.data_parallel_size)
    if rest or not 0 < pods <= current.replicas:
        return (
            f"{asked.replicas} replicas of size {asked.tensor_parallel_size} do not fill whole pods of {gpus} GPUs, "
            f"of which there are {current.replicas}: write a multiple of {layout.data_parallel_size}, at most "
            f"{current.replicas * layout.data_parallel_size}"
        )
    if (reason := disturbance(current, around=around)) is not None:
        return reason
    return _too_long_a_hold(current, terms=terms)


def _unchangeable(current: Variant, *, inputs: Inputs) -> str | None:
    """What keeps its pods from changing to any size."""
    before, after = (
        None if one is None else {**one, "tensorParallelSize": 0} for one in (current.made_from, inputs)
    )
    if before != after:
        return "more than the tensor-parallel size is to change"
    for pod in current.live:
        if not pod.ready:
            return f"pod {pod.name} is not Ready"
        if pod.layout is None:
            return f"pod {pod.name} does not say its layout: its runtime cannot change it"
    return None


def _too_long_a_hold(current: Variant, *, terms: Terms) -> str | None:
    """A single pod leaves nobody to serve meanwhile."""
    if len(current.serving) != 1:
        return None
    needed_s = _start_s(current.serving[0])
    if needed_s is None:
        return "the time of a start is not known"
    if terms.max_hold_s <= needed_s + ROUTING_S:
        return (
            f"it is the only pod, and requests would be held for over {math.ceil(needed_s) + ROUTING_S} s: write at "
            "least that and the time of the last requests as spec.transition.maxHoldSeconds"
        )
    return None


def orders(
    variant: Variant, *, layout: Layout, change: int, terms: Terms, around: Surroundings
) -> tuple[Reshape, ...]:
    """Which pods are told now."""
    wrong = [pod for pod in variant.live if ordered(pod, variant) != layout]
    at_once = [pod for pod in wrong if not pod.ready or pod.layout == layout]
    if at_once:
        return tuple(_order(pod, layout, change=change, drain_s=None) for pod in at_once)
    if not wrong or any(_is_under_way(pod, variant) for pod in variant.live):
        return ()
    if disturbance(variant, around=around) is not None or any(pod.layout is None for pod in wrong):
        return ()
    drain_s = None
    if len(variant.serving) == 1:
        if _too_long_a_hold(variant, terms=terms) is not None:
            return ()
        drain_s = math.floor(terms.max_hold_s - ROUTING_S - (_start_s(wrong[0]) or 0.0))
    first = min(wrong, key=lambda pod: pod.name)
    return (_order(first, layout, change=change, drain_s=drain_s),)


def refusal(variant: Variant, *, layout: Layout, generation: int) -> Refused | None:
    """A pod's own word: it went back to what it had."""
    for pod in variant.live:
        info = pod.info
        if info is not None and _refuses(pod) and ordered(pod, variant) == layout:
            return Refused(
                generation=generation,
                field="spec.scaling.tensorParallelSize",
                reason=LAYOUT_REFUSED,
                message=f"pod {pod.name} stays as it was: {info.refused_because or 'no reason given'}"[:1024],
            )
    return None


def all_told(variant: Variant, *, layout: Layout) -> bool:
    return all(ordered(pod, variant) == layout for pod in variant.live)


def serving_in(pods: Iterable[Pod], layout: Layout) -> int:
    return sum(1 for pod in pods if pod.layout == layout)


def ordered(pod: Pod, variant: Variant) -> Layout:
    """What it was told; one that was told nothing, or nothing that can be read, has the layout of its template."""
    return pod.told or Layout(variant.gpus_per_pod)


def _is_under_way(pod: Pod, variant: Variant) -> bool:
    if not pod.ready:
        return True
    return pod.layout != ordered(pod, variant) and not _refuses(pod)


def _refuses(pod: Pod) -> bool:
    return pod.info is not None and pod.ordered is not None and pod.info.refused_order == pod.ordered


def _start_s(pod: Pod) -> float | None:
    return pod.info.stage_seconds.get("ready") if pod.info is not None else None


def _order(pod: Pod, layout: Layout, *, change: int, drain_s: int | None) -> Reshape:
    return Reshape(name=pod.name, uid=pod.uid, order=LayoutOrder(layout, change=change, drain_s=drain_s))
