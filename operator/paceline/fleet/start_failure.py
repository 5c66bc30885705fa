"""Why a variant that comes will not make it: called by `transition`."""

from __future__ import annotations

from paceline.api import Refused
from paceline.fleet.in_place import why_not
from paceline.fleet.replicas import safe_serving
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
    started_s = unix_s(transition.started_at) if transition.started_at else situation.now_s
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
                    f"{_in_place(situation)}free the capacity or ask for less, and change the spec to try again"
                ),
            )
    serving = safe_serving(new, around=situation.around) if new is not None else 0
    asked = situation.asked_of(new) if new is not None else situation.asked.replicas
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


def _in_place(situation: Situation) -> str:
    """Why that was no way out, for who has allowed it."""
    transition = situation.transition
    old = situation.find(transition.from_variant) if transition is not None else None
    if old is None or not situation.in_place.enabled:
        return ""
    reason = why_not(
        old,
        inputs=situation.inputs,
        asked=situation.asked,
        terms=situation.in_place,
        around=situation.around,
    )
    return f"not in place either ({reason}): " if reason is not None else ""


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
