"""The change of variant by recreate: old pods leave first, and new ones take their GPUs.

The way where new pods find no GPUs beside the old ones and no change in place is to be had. GPUs that a pod leaves are
anybody's until another has them, so pods leave for one new pod at a time, and for the next one only when that one serves:

    8 GPUs, two pods of 4 each     Stopping   Starting   Stopping   Starting   Draining   Done
                             old      1          1          0          0          0
                             new      1          1          2          2          2
                         serving      1         1..2      2..1       1..2         2

It is reckoned by number: both variants together are to hold no more GPUs than their pods were on when it began
(`recreateGpus`). So what a rival takes meanwhile is not made good by stopping another pod, and a new pod that finds no
place although one was left for it ends the change. The way back is the same with the sides exchanged.

`advance` and `transition` call it for the counts. Pure, and without memory: counts follow from those that are observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.fleet.drain_time import engine_grace_s
from paceline.fleet.inventory import rooms
from paceline.fleet.observed import Observed
from paceline.fleet.replicas import disturbance, routed
from paceline.fleet.roles import ROLLING_BACK, STOPPING, recreated
from paceline.fleet.shape import active_override
from paceline.fleet.situation import RecreateTerms, Situation
from paceline.fleet.variant import Variant

GONE_S = 30.0
"""From the end of its grace until a pod of a node that works is gone."""


def terms(observed: Observed, *, tensor_parallel_size: int) -> RecreateTerms:
    """`tensor_parallel_size` is that of the new pods."""
    service = observed.service
    enabled = service.spec.transition.recreate == "Enabled"
    useless: frozenset[str] = frozenset()
    if enabled:
        mine = {pod.node for pod in observed.pods if pod.component == "engine"}
        nodes = [node for node in observed.nodes if node.name in mine]
        found = rooms(service, nodes=nodes, requested={})
        useful = {room.node for room in found if room.total >= tensor_parallel_size}
        useless = frozenset(node.name for node in nodes if node.name not in useful)
    return RecreateTerms(
        enabled=enabled,
        is_planners=service.spec.scaling.mode == "Auto" and active_override(observed) is None,
        useless_nodes=useless,
        leave_s=engine_grace_s(service) + GONE_S,
    )


def why_not(old: Variant, *, situation: Situation) -> str | None:
    """What keeps its pods from making room for the target's; None if nothing does."""
    allowed = situation.recreate
    if not allowed.enabled:
        return "spec.transition.recreate is Disabled"
    if allowed.is_planners and old.tensor_parallel_size != situation.asked.tensor_parallel_size:
        return "Auto does not take it to another tensor-parallel size"
    places = {pod.node for pod in old.live if pod.node is not None}
    if places and places <= allowed.useless_nodes:
        return "no node of the pods that serve takes such a pod, were it empty"
    return disturbance(old, around=situation.around)


def held_gpus(*variants: Variant | None) -> int:
    """Of the nodes that their pods are on, those that drain among them."""
    return sum(
        one.gpus_per_pod
        for one in variants
        if one is not None
        for pod in one.pods
        if pod.node is not None and not pod.finished
    )


def counts(situation: Situation) -> Mapping[str, int]:
    """Pods of the two variants under a change by recreate; empty where there is none."""
    transition = situation.transition
    if transition is None or not recreated(transition):
        return {}
    old = situation.find(transition.from_variant)
    if old is None or transition.to_variant is None or transition.recreate_gpus is None:
        return {}
    before = _side(old.name, old, gpus=old.gpus_per_pod, asked=situation.asked_of(old), situation=situation)
    new = situation.find(transition.to_variant)
    after = _side(
        transition.to_variant,
        new,
        gpus=new.gpus_per_pod if new is not None else situation.asked.tensor_parallel_size,
        asked=situation.asked_of(new) if new is not None else situation.asked.replicas,
        situation=situation,
    )
    if transition.step == ROLLING_BACK:
        # What does not serve holds GPUs for nothing.
        return _exchanged(after, after.serving, before, gpus=transition.recreate_gpus, may_leave=True)
    may_leave = transition.step == STOPPING and disturbance(old, around=situation.around) is None
    return _exchanged(before, before.pods, after, gpus=transition.recreate_gpus, may_leave=may_leave)


def has_left(old: Variant, *, situation: Situation) -> bool:
    """All that were to make room are gone, and their GPUs are free."""
    staying = counts(situation).get(old.name, old.replicas)
    return old.replicas == staying == len(old.live) and old.settled and not old.draining


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One of the two variants."""

    name: str
    pods: int
    serving: int
    routed: int
    gpus: int
    """Of one pod."""

    asked: int


def _side(name: str, variant: Variant | None, *, gpus: int, asked: int, situation: Situation) -> _Side:
    if variant is None:
        return _Side(name=name, pods=0, serving=0, routed=0, gpus=gpus, asked=asked)
    return _Side(
        name=name,
        pods=variant.replicas,
        serving=min(variant.replicas, len(variant.serving)),
        routed=routed(variant, now_s=situation.now_s, around=situation.around),
        gpus=gpus,
        asked=asked,
    )


def _exchanged(leaving: _Side, pods: int, coming: _Side, *, gpus: int, may_leave: bool) -> Mapping[str, int]:
    """`pods` of the side that leaves are there: as many of the other as have room beside them; and once these serve, less
    by what the next one needs."""
    due = _due(coming, beside=pods * leaving.gpus, gpus=gpus)
    if may_leave and coming.pods >= due and coming.routed >= due:
        room = gpus - (due + 1) * coming.gpus
        pods = 0 if due >= coming.asked else min(pods, max(0, room // leaving.gpus))
        due = _due(coming, beside=pods * leaving.gpus, gpus=gpus)
    return {leaving.name: pods, coming.name: max(due, min(coming.pods, coming.serving))}


def _due(coming: _Side, *, beside: int, gpus: int) -> int:
    """One at least when nothing is left that could make room: there may be more than was held."""
    fitting = max(0, gpus - beside) // coming.gpus
    return min(coming.asked, fitting if beside else max(1, fitting))
