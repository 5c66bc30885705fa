"""In Auto: a shape that cannot be had is given up, and remembered for a while; called by `plan`.

Without: pods stay Pending for GPUs that do not exist, and the planner asks for them again at every look. What
a person asked for by the spec or by an override is left to the person; it is only refused, as before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from paceline.api import RefusedShape, Shape
from paceline.fleet.in_place import is_in_place, wanted_layout
from paceline.fleet.observed import Observed
from paceline.fleet.roles import is_active
from paceline.fleet.shape import active_override
from paceline.fleet.situation import DEADLINE_EXCEEDED, UNSCHEDULABLE, Decision, Situation
from paceline.fleet.timestamps import rfc3339, unix_s
from paceline.fleet.variant import Variant

UNSCHEDULABLE_S = 900.0
"""A shape that found no place may find one soon, and what the inventory shows of that the planner sees by
itself: this only keeps it from what the inventory cannot show (affinity, topology, quotas of CPU or memory)."""

KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    refused: RefusedShape
    fallback: Shape
    """What is asked for instead, until the planner knows better."""


def setback(observed: Observed, *, situation: Situation, decision: Decision) -> Setback | None:
    if observed.service.spec.scaling.mode != "Auto" or active_override(observed) is not None:
        return None
    current = decision.roles.current
    if current is None or observed.service.spec.paused:
        return None
    # By the step that was decided on: pods that are to go back have the old size from here on.
    current = replace(current, layout=wanted_layout(current, decision.transition))
    if current.tensor_parallel_size != situation.asked.tensor_parallel_size:
        return _of_change(observed, current, situation=situation, decision=decision)
    if is_active(decision.transition):
        return None
    return _of_growth(observed, situation=situation, decision=decision)


def _of_change(
    observed: Observed, current: Variant, *, situation: Situation, decision: Decision
) -> Setback | None:
    """A change to another tensor-parallel size was refused, or rolled back."""
    refused = decision.refused
    if refused is None or situation.refused is not None:
        return None
    pods = current.replicas if is_in_place(decision.transition) else situation.asked_of(current)
    return Setback(
        refused=_refused(observed, situation.asked, reason=refused.reason, message=refused.message),
        fallback=Shape(
            tensor_parallel_size=current.tensor_parallel_size,
            replicas=pods * current.layout.data_parallel_size,
        ),
    )


def _of_growth(observed: Observed, *, situation: Situation, decision: Decision) -> Setback | None:
    """More replicas were asked for than find a place, or get Ready in time."""
    current, asked = decision.roles.current, situation.asked
    if current is None or current.name != situation.target:
        return None
    now_s, bounds = situation.now_s, observed.service.spec.scaling.replica_bounds
    lost, reason, why = 0, UNSCHEDULABLE, ""
    freed = len(current.draining)
    for pod in current.starting:
        if pod.unschedulable_since_s is not None:
            if freed:
                # It finds the place of one that still drains, however long that takes.
                freed -= 1
            elif now_s - pod.unschedulable_since_s >= situation.pending_deadline_s:
                lost, why = lost + 1, pod.unschedulable_message or ""
        elif now_s - pod.created_at_s >= situation.ready_deadline_s and pod.ready_since_s is None:
            lost, reason, why = lost + 1, DEADLINE_EXCEEDED, pod.why_not_ready or ""
    # Of the pods that are there: the next plan sees the same ones, until the count has been lowered.
    kept = (len(current.live) - lost) * current.layout.data_parallel_size
    replicas = max(kept, bounds.min if bounds is not None else 1)
    if not lost or replicas >= asked.replicas or not current.serving:
        return None
    message = (
        f"{lost} of {current.pods_for(asked.replicas)} pods found no place or were not Ready in time: {why}"
    )
    return Setback(
        refused=_refused(observed, asked, reason=reason, message=message),
        fallback=Shape(tensor_parallel_size=asked.tensor_parallel_size, replicas=replicas),
    )


def _refused(observed: Observed, shape: Shape, *, reason: str, message: str) -> RefusedShape:
    cooldown_s = float(observed.service.spec.transition.rollback_cooldown_seconds)
    for_s = min(cooldown_s, UNSCHEDULABLE_S) if reason == UNSCHEDULABLE else cooldown_s
    return RefusedShape(
        tensor_parallel_size=shape.tensor_parallel_size,
        replicas=shape.replicas,
        reason=reason,
        message=message[:400],
        until=rfc3339(observed.now_s + for_s),
    )


def refused_shapes(observed: Observed, *, news: Setback | None) -> tuple[RefusedShape, ...]:
    """Those whose time is not over, the latest first."""
    before = observed.status.refused_shapes if observed.status is not None else ()
    kept = tuple(one for one in before if unix_s(one.until) > observed.now_s)
    if news is None:
        return kept
    same = (news.refused.tensor_parallel_size, news.refused.replicas)
    others = tuple(one for one in kept if (one.tensor_parallel_size, one.replicas) != same)
    return (news.refused, *others)[:KEPT]
