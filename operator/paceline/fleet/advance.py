"""The step that the cluster has reached: called by `transition` at the begin of each plan.

What moves is the transition of the status, and with it a refusal where the change has failed. How many pods each variant
gets under a step is `transition`'s.
"""

from __future__ import annotations

from dataclasses import replace

from paceline.api import Refused, TransitionStatus
from paceline.fleet import in_place, recreate
from paceline.fleet.actions import Event
from paceline.fleet.replicas import routed
from paceline.fleet.roles import (
    DONE,
    DRAINING,
    RESHAPING,
    ROLLED_BACK,
    ROLLING_BACK,
    STARTING,
    STOPPING,
    Step,
    is_active,
    recreated,
)
from paceline.fleet.situation import DEADLINE_EXCEEDED, UNSCHEDULABLE, Situation
from paceline.fleet.start_failure import failure
from paceline.fleet.timestamps import rfc3339, unix_s
from paceline.fleet.variant import Variant
from paceline_core import Layout

Advanced = tuple[Situation, tuple[Event, ...]]


def advance(situation: Situation) -> Advanced:
    """Move the transition of the status to the step that the cluster has reached."""
    transition = situation.transition
    if transition is None or not is_active(transition):
        return situation, ()
    old, new = situation.find(transition.from_variant), situation.find(transition.to_variant)
    old_lives, new_lives = old is not None and old.replicas > 0, new is not None and new.replicas > 0
    names = f"from {transition.from_variant} to {transition.to_variant}"
    if in_place.is_in_place(transition):
        return _advance_in_place(situation, transition, old)
    if recreated(transition):
        return _advance_recreate(situation, transition, old, new)
    match transition.step:
        case "Starting" if not old_lives:
            return _to(situation, transition, DONE), ()
        case "Starting" if situation.target != transition.to_variant:
            message = f"The spec changed while the change {names} was under way: it is taken back"
            return _to(situation, transition, ROLLING_BACK), (normal("TransitionCancelled", message),)
        case "Starting" if new is not None and _is_at_strength(new, situation):
            message = f"All {situation.asked_of(new)} pods of {new.name} are Ready: the old ones leave"
            return _to(situation, transition, DRAINING), (normal("TransitionSwitched", message),)
        case "Starting" if (
            _finds_no_place(new) and (begun := reshaping(situation, transition, old)) is not None
        ):
            return begun
        case "Starting" if (failed := failure(new, situation)) is not None:
            if (
                old is not None
                and failed.reason == UNSCHEDULABLE
                and recreate.why_not(old, situation=situation) is None
            ):
                return _recreating(situation, transition, old, new)
            return _refused(_to(situation, transition, ROLLING_BACK), failed, names)
        case "Draining" if not new_lives:
            return _to(situation, transition, ROLLED_BACK), ()
        case "Draining" if not any(one.replicas for one in situation.variants if one is not new):
            return _to(situation, transition, DONE), (normal("TransitionDone", f"Change {names} is done"),)
        case "RollingBack" if not new_lives:
            return _to(situation, transition, ROLLED_BACK), ()
        case "RollingBack" if not old_lives:
            return _to(situation, transition, DONE), ()
    return situation, ()


def _finds_no_place(new: Variant | None) -> bool:
    """By the scheduler's word: it alone knows what is free."""
    return new is not None and any(pod.unschedulable_since_s is not None for pod in new.live)


def reshaping(situation: Situation, transition: TransitionStatus, old: Variant | None) -> Advanced | None:
    """The surge that finds no GPUs becomes a change in place; None where that may not be."""
    layout = in_place.layout_for(old, situation.asked) if old is not None else None
    if old is None or layout is None:
        return None
    reason = in_place.why_not(
        old,
        inputs=situation.inputs,
        asked=situation.asked,
        terms=situation.in_place,
        around=situation.around,
    )
    if reason is not None:
        return None
    changed = transition.model_copy(
        update={
            "to_variant": old.name,
            "from_layout": str(old.layout),
            "to_layout": str(layout),
            "step": RESHAPING,
            "deadline": rfc3339(situation.now_s + situation.in_place.pod_allowance_s),
        }
    )
    message = f"No GPUs for {transition.to_variant} beside {old.name}: its pods change from {old.layout} to {layout} in place"
    return replace(situation, transition=changed), (normal("ReshapingInPlace", message),)


def _advance_in_place(situation: Situation, transition: TransitionStatus, old: Variant | None) -> Advanced:
    assert transition.from_layout is not None
    assert transition.to_layout is not None
    names = f"of {transition.from_variant} from {transition.from_layout} to {transition.to_layout}"
    before, after = Layout.parse(transition.from_layout), Layout.parse(transition.to_layout)
    if old is None or not old.replicas:
        return _to(situation, transition, DONE if transition.step == RESHAPING else ROLLED_BACK), ()
    if transition.step == ROLLING_BACK:
        return (
            _to(situation, transition, ROLLED_BACK) if in_place.all_told(old, layout=before) else situation
        ), ()
    told = in_place.all_told(old, layout=after)
    if told and all(pod.layout == after for pod in old.live) and _is_routed(old, old.replicas, situation):
        return _to(situation, transition, DONE), (normal("TransitionDone", f"Change {names} is done"),)
    refused = in_place.refusal(old, layout=after, generation=situation.generation)
    if refused is None and transition.deadline is not None and situation.now_s >= unix_s(transition.deadline):
        ready = in_place.serving_in(old.serving, after)
        reasons = (pod.why_not_ready for pod in old.live if not pod.ready)
        why = next((reason for reason in reasons if reason is not None), "no reason given")
        refused = Refused(
            generation=situation.generation,
            field="spec.transition.readyDeadlineSeconds",
            reason=DEADLINE_EXCEEDED,
            message=f"{ready} of {old.replicas} pods serve as {after}, and the next one did not in time ({why[:600]})",
        )
    if refused is None:
        return situation, ()
    return _refused(_to(situation, transition, ROLLING_BACK), refused, names)


def _recreating(
    situation: Situation, transition: TransitionStatus, old: Variant, new: Variant | None
) -> Advanced:
    """The surge that finds no GPUs becomes a change by recreate."""
    gpus = recreate.held_gpus(old, new)
    message = (
        f"No GPUs for {transition.to_variant} beside {old.name}: its pods leave first, by recreate, as many at a time as "
        f"the next new one needs of the {gpus} GPUs that both hold"
    )
    return _stopping(situation, transition, gpus=gpus), (normal("Recreating", message),)


def _advance_recreate(
    situation: Situation, transition: TransitionStatus, old: Variant | None, new: Variant | None
) -> Advanced:
    if old is None:
        return _to(situation, transition, ROLLED_BACK if transition.step == ROLLING_BACK else DONE), ()
    if transition.step == ROLLING_BACK:
        return _going_back(situation, transition, old, new), ()
    names = f"from {transition.from_variant} to {transition.to_variant} by recreate"
    back = _back(situation, transition, gpus=recreate.held_gpus(old, new))
    if situation.target != transition.to_variant:
        message = f"The spec changed while the change {names} was under way: it is taken back"
        return back, (normal("TransitionCancelled", message),)
    if new is not None and (_is_at_strength(new, situation) or _is_all_there_can_be(new, old, situation)):
        message = f"{len(new.serving)} pods of {new.name} are Ready: what is left of {old.name} leaves"
        return _to(situation, transition, DRAINING), (normal("TransitionSwitched", message),)
    failed = failure(new, situation) if transition.step == STARTING else _stays_too_long(old, situation)
    if failed is not None and new is not None and new.serving and not old.replicas:
        message = f"Change {names} is not taken back, since only new pods serve: {failed.message}"
        event = Event(type="Warning", reason="TransitionSwitched", message=message)
        return _to(situation, transition, DRAINING), (event,)
    if failed is not None:
        return _refused(back, failed, names)
    if transition.step == STOPPING:
        if not recreate.has_left(old, situation=situation):
            return situation, ()
        return _turned(situation, transition, STARTING, for_s=situation.ready_deadline_s), ()
    stopping = _stopping(situation, transition)
    return (stopping if recreate.counts(stopping)[old.name] < old.replicas else situation), ()


def _going_back(
    situation: Situation, transition: TransitionStatus, old: Variant, new: Variant | None
) -> Situation:
    if new is None or (old.replicas and not new.replicas):
        return _to(situation, transition, ROLLED_BACK)
    if recreate.counts(situation)[new.name] < new.replicas:
        return _back(situation, transition)
    late = transition.deadline is not None and situation.now_s >= unix_s(transition.deadline)
    # New pods that serve stay then, as stand-ins for old ones, and no edit waits any longer.
    return _to(situation, transition, ROLLED_BACK) if late else situation


def _is_all_there_can_be(new: Variant, old: Variant, situation: Situation) -> bool:
    """The rest of what is asked for is growth: no old pod is left that could make room."""
    return not old.replicas and new.replicas > 0 and _is_routed(new, new.replicas, situation)


def _stays_too_long(old: Variant, situation: Situation) -> Refused | None:
    transition = situation.transition
    if transition is None or transition.deadline is None or situation.now_s < unix_s(transition.deadline):
        return None
    names = ", ".join(pod.name for pod in old.draining) or "no pod has left yet"
    return Refused(
        generation=situation.generation,
        reason=DEADLINE_EXCEEDED,
        message=f"old pods did not leave within {int(situation.recreate.leave_s)} s ({names[:600]})",
    )


def _stopping(situation: Situation, transition: TransitionStatus, *, gpus: int | None = None) -> Situation:
    return _turned(situation, transition, STOPPING, for_s=situation.recreate.leave_s, gpus=gpus)


def _back(situation: Situation, transition: TransitionStatus, *, gpus: int | None = None) -> Situation:
    for_s = situation.recreate.leave_s + situation.ready_deadline_s
    return _turned(situation, transition, ROLLING_BACK, for_s=for_s, gpus=gpus)


def _turned(
    situation: Situation,
    transition: TransitionStatus,
    step: Step,
    *,
    for_s: float,
    gpus: int | None = None,
) -> Situation:
    """To a step of a change by recreate, for so long."""
    update: dict[str, object] = {
        "step": step,
        "step_started_at": rfc3339(situation.now_s),
        "deadline": rfc3339(situation.now_s + for_s),
    }
    if gpus is not None:
        update["recreate_gpus"] = gpus
    return replace(situation, transition=transition.model_copy(update=update))


def _is_at_strength(new: Variant, situation: Situation) -> bool:
    return _is_routed(new, situation.asked_of(new), situation)


def _is_routed(variant: Variant, pods: int, situation: Situation) -> bool:
    """So many are Ready, safe, and known to the routers by now."""
    known = routed(variant, now_s=situation.now_s, around=situation.around)
    return known >= pods and not situation.around.router_rolling


def _refused(situation: Situation, refused: Refused, names: str) -> Advanced:
    message = f"Change {names} rolled back: {refused.message}"
    event = Event(type="Warning", reason="TransitionRolledBack", message=message)
    return replace(situation, refused=refused), (event,)


def _to(situation: Situation, transition: TransitionStatus, step: Step) -> Situation:
    return replace(situation, transition=transition.model_copy(update={"step": step}))


def normal(reason: str, message: str) -> Event:
    return Event(type="Normal", reason=reason, message=message)
