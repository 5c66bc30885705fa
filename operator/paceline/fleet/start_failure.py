"""Why a variant that comes will not make it: called by `transition`."""

from __future__ import annotations

from paceline.api import Refused
from paceline.fleet import recreate
from paceline.fleet.in_place import why_not
from paceline.fleet.replicas import safe_serving
from paceline.fleet.roles import recreated
from paceline.fleet.situation import DEADLINE_EXCEEDED, REFUSED, UNSCHEDULABLE, Situation
from paceline.fleet.timestamps import unix_s
from paceline.fleet.variant import Variant


def failure(new: Variant | None, situation: Situation) -> Refused | None:
    """Why the coming variant will not make it. None as long as it may."""
    transition = situation.transition
    if transition is None:
        return None
    if new is not None and (verdict := refusal_of(new, situation)) is not None:
        return verdict
    live = new.live if new is not None else ()
    began_at = transition.step_started_at or transition.started_at
    started_s = unix_s(began_at) if began_at else situation.now_s
    for pod in live:
        if pod.unschedulable_since_s is None:
            continue
        pending_s = situation.now_s - max(pod.unschedulable_since_s, started_s)
        if pending_s >= situation.pending_deadline_s:
            return Refused(
                generation=situation.generation,
                reason=UNSCHEDULABLE,
                message=(
                    f"pod {pod.name} found no node for {int(pending_s)} s "
                    f"({(pod.unschedulable_message or 'no reason given')[:600]}): "
                    f"{_other_ways(situation)}free the capacity or ask for less, and change the spec to try again"
                ),
            )
    serving = safe_serving(new, around=situation.around) if new is not None else 0
    asked = _due(new, situation)
    late = transition.deadline is not None and situation.now_s >= unix_s(transition.deadline)
    if not late or serving >= asked:
        return None
    reasons = (pod.why_not_ready for pod in live if not pod.ready)
    why = next((reason for reason in reasons if reason is not None), "no reason given")
    return Refused(
        generation=situation.generation,
        field="spec.transition.readyDeadlineSeconds",
        reason=DEADLINE_EXCEEDED,
        message=(
            f"{serving} of {asked} new pods were Ready after "
            f"{int(situation.now_s - started_s)} s ({why[:600]}): mend what keeps them or allow more "
            "time, and change the spec to try again"
        ),
    )


def _due(new: Variant | None, situation: Situation) -> int:
    """Pods that are to be Ready by the deadline: by recreate, those that room was made for."""
    if new is None:
        return situation.asked.replicas
    return new.replicas if recreated(situation.transition) else situation.asked_of(new)


def _other_ways(situation: Situation) -> str:
    """Why those that were allowed were no way out."""
    transition = situation.transition
    if recreated(transition):
        return "old pods had made room, which others have taken or which lies apart: "
    old = situation.find(transition.from_variant) if transition is not None else None
    if old is None:
        return ""
    ways = {}
    if situation.in_place.enabled:
        ways["in place"] = why_not(
            old,
            inputs=situation.inputs,
            asked=situation.asked,
            terms=situation.in_place,
            around=situation.around,
        )
    if situation.recreate.enabled:
        ways["by recreate"] = recreate.why_not(old, situation=situation)
    return "".join(f"not {way} either ({reason}): " for way, reason in ways.items() if reason is not None)


def refusal_of(variant: Variant, situation: Situation) -> Refused | None:
    """Of a pod that does not serve: one that does has got over what its last container said."""
    for pod in variant.starting:
        if pod.verdict is not None and pod.verdict.verdict == "Refused":
            return Refused(
                generation=situation.generation,
                field=pod.verdict.field,
                reason=REFUSED,
                message=pod.verdict.message[:1024],
            )
    return None


def refused_before_serving(current: Variant, situation: Situation) -> Refused | None:
    """The launcher's refusal of a variant that has nothing before it to go back to."""
    if current.has_served or current.name != situation.target:
        return None
    return refusal_of(current, situation)


def is_hopeless(current: Variant, situation: Situation) -> bool:
    """It never served, and its own launcher refuses it: it must not hold GPUs until somebody edits the
    spec."""
    return situation.refused is not None and refused_before_serving(current, situation) is not None
