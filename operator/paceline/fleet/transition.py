"""The next step of the engines: replicas of each variant, and the change from one variant to the next.

A change of what shapes an engine pod is a *surge*: new pods first, old ones after. Where the scheduler finds no GPUs
for it, and the spec allows it, the pods that serve change *in place* (`in_place`): at once where the planner has seen
that there are none.

    (none) --> Starting --> Draining --> Done          the target is Ready: the old variant leaves
       |          |  |
       |          |  +---v
       +----------|-> Reshaping --> Done                no GPUs for it: the new pods go, the old ones change
                  |      |
                  +------+--> RollingBack --> RolledBack  deadline, unschedulable, a refusal, another spec

* One at a time: only one variant ever comes. In `Starting` the old one is untouched, except that it may
  grow.
* `Draining` goes only forward. It ends when the old variant has no replicas; its pods drain aside, and
  their GPUs are counted as draining until they are gone.
* Variants that leave, or one that comes and is asked for fewer by now, keep as many serving pods as the one
  that stays still lacks, so no step of ours takes the service below what is asked for, in whatever order
  the cluster moves.
* Where somebody takes the old variant away in `Starting` or `RollingBack`, the change is `Done`: the new one is
  what stays, in full, whatever is asked for by now. The next change begins from it.
* `Reshaping` takes one pod after the other, whatever becomes of the spec meanwhile: half a change is no shape.
* A variant that never served has nothing to keep: it leaves at once, so that it holds no GPUs that the next
  needs.

Everything follows from what is observed. A step is written to the status, compare-and-swap, before what it
allows is done (`Decision.destructive`): after a crash between the two, the next plan finds the step and
goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paceline.api import Refused, TransitionStatus
from paceline.fleet import in_place
from paceline.fleet.actions import Event
from paceline.fleet.replicas import (
    disturbance,
    next_replicas,
    safe_serving,
    surplus_counts,
    surplus_replicas,
)
from paceline.fleet.roles import (
    DONE,
    DRAINING,
    RESHAPING,
    ROLLED_BACK,
    ROLLING_BACK,
    STARTING,
    Roles,
    Step,
    assign_roles,
    is_active,
)
from paceline.fleet.situation import DEADLINE_EXCEEDED, INFEASIBLE, REFUSED, Decision, Situation
from paceline.fleet.start_failure import failure, is_hopeless, refused_before_serving
from paceline.fleet.timestamps import rfc3339, unix_s
from paceline.fleet.variant import Variant
from paceline_core import Layout

ROUTED_AFTER_S = 5.0
"""Time that a pod must have been Ready before another may leave for it: a router was seen to take up to 3 s
to list it, and the gate compares its list every 5 s."""


def decide(situation: Situation) -> Decision:
    situation, events = _advance(situation)
    roles = _roles(situation)
    current = roles.current
    if current is None:
        return _first_start(situation, roles=roles, events=events)
    situation = replace(situation, refused=situation.refused or refused_before_serving(current, situation))
    kept = _settled(situation, roles=roles, current=current, events=events)
    if current.name == situation.target or situation.refused is not None or not situation.asked.replicas:
        # On its way to zero a service has nothing to bring up; it wakes as the other variant.
        return kept
    if is_active(situation.transition) and not _is_stuck(situation, roles):
        return kept
    if situation.refusal is not None and situation.find(situation.target) is None:
        return replace(kept, refused=situation.refusal)
    if (reason := _hindrance(current, situation)) is not None:
        return replace(kept, waiting=reason)
    return _begin(situation, current=current, events=events)


def _advance(situation: Situation) -> tuple[Situation, tuple[Event, ...]]:
    """Move the transition of the status to the step that the cluster has reached."""
    transition = situation.transition
    if transition is None or not is_active(transition):
        return situation, ()
    old, new = situation.find(transition.from_variant), situation.find(transition.to_variant)
    old_lives, new_lives = old is not None and old.replicas > 0, new is not None and new.replicas > 0
    names = f"from {transition.from_variant} to {transition.to_variant}"
    if in_place.is_in_place(transition):
        return _advance_in_place(situation, transition, old)
    match transition.step:
        case "Starting" if not old_lives:
            return _to(situation, transition, DONE), ()
        case "Starting" if situation.target != transition.to_variant:
            message = f"The spec changed while the change {names} was under way: it is taken back"
            return _to(situation, transition, ROLLING_BACK), (_normal("TransitionCancelled", message),)
        case "Starting" if new is not None and _is_at_strength(new, situation):
            message = f"All {situation.asked_of(new)} pods of {new.name} are Ready: the old ones leave"
            return _to(situation, transition, DRAINING), (_normal("TransitionSwitched", message),)
        case "Starting" if (
            _finds_no_place(new) and (begun := _reshaping(situation, transition, old)) is not None
        ):
            return begun
        case "Starting" if (failed := failure(new, situation)) is not None:
            message = f"Change {names} rolled back: {failed.message}"
            event = Event(type="Warning", reason="TransitionRolledBack", message=message)
            return replace(_to(situation, transition, ROLLING_BACK), refused=failed), (event,)
        case "Draining" if not new_lives:
            return _to(situation, transition, ROLLED_BACK), ()
        case "Draining" if not any(one.replicas for one in situation.variants if one is not new):
            return _to(situation, transition, DONE), (_normal("TransitionDone", f"Change {names} is done"),)
        case "RollingBack" if not new_lives:
            return _to(situation, transition, ROLLED_BACK), ()
        case "RollingBack" if not old_lives:
            return _to(situation, transition, DONE), ()
    return situation, ()


def _finds_no_place(new: Variant | None) -> bool:
    """By the scheduler's word: it alone knows what is free."""
    return new is not None and any(pod.unschedulable_since_s is not None for pod in new.live)


def _reshaping(
    situation: Situation, transition: TransitionStatus, old: Variant | None
) -> tuple[Situation, tuple[Event, ...]] | None:
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
    return replace(situation, transition=changed), (_normal("ReshapingInPlace", message),)


def _advance_in_place(
    situation: Situation, transition: TransitionStatus, old: Variant | None
) -> tuple[Situation, tuple[Event, ...]]:
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
        return _to(situation, transition, DONE), (_normal("TransitionDone", f"Change {names} is done"),)
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
    event = Event(
        type="Warning",
        reason="TransitionRolledBack",
        message=f"Change {names} rolled back: {refused.message}",
    )
    return replace(_to(situation, transition, ROLLING_BACK), refused=refused), (event,)


def _first_start(situation: Situation, *, roles: Roles, events: tuple[Event, ...]) -> Decision:
    """Nothing has replicas: a new service, or one whose Deployment was deleted, or one that was refused, or one
    that is at zero. That one's Deployment stays, so that the same pods come back, of the same commit."""
    target = situation.find(situation.target)
    refused = situation.refused
    if refused is None and target is None:
        refused = situation.refusal
    starts = refused is None or refused.reason not in (REFUSED, INFEASIBLE)
    replicas = {one.name: 0 for one in situation.variants}
    if starts:
        replicas[situation.target] = situation.target_pods
    remove = tuple(name for name in _removable(situation, replicas) if not starts or name != situation.target)
    return Decision(
        transition=situation.transition,
        refused=None if starts else refused,
        roles=roles,
        replicas=replicas,
        remove=remove,
        destructive=frozenset(remove),
        events=events,
    )


def _begin(situation: Situation, *, current: Variant, events: tuple[Event, ...]) -> Decision:
    """Start the change to the target; its new pods are the only thing that happens in this plan."""
    before = situation.transition
    step = STARTING if current.has_served else DRAINING
    transition = TransitionStatus(
        id=(before.id if before is not None else 0) + 1,
        from_variant=current.name,
        to_variant=situation.target,
        step=step,
        started_at=rfc3339(situation.now_s),
        deadline=rfc3339(situation.now_s + situation.ready_deadline_s),
    )
    message = f"Change {transition.id} from {current.name} to {situation.target} begins"
    events = (*events, _normal("TransitionStarted", message))
    situation = replace(situation, transition=transition)
    if situation.no_room_beside and (reshaping := _reshaping(situation, transition, current)) is not None:
        situation, news = reshaping
        return _settled(situation, roles=_roles(situation), current=current, events=(*events, *news))
    roles = _roles(situation)
    begun = _settled(situation, roles=roles, current=roles.current or current, events=events)
    replicas = _instead(situation) if step == DRAINING else begun.replicas
    return replace(
        begun,
        replicas=replicas,
        remove=tuple(name for name in begun.remove if name != situation.target),
        destructive=begun.destructive.union(replicas if step == DRAINING else (situation.target,)),
    )


def _instead(situation: Situation) -> Mapping[str, int]:
    """The target is what stays from now on, though nothing of it may be there: all others leave, and one that never
    served leaves whole."""
    target, around = situation.find(situation.target), situation.around
    there, serving = (target.replicas, safe_serving(target, around=around)) if target is not None else (0, 0)
    leaving = (one for one in situation.variants if one is not target)
    counts = surplus_counts(leaving, lacking=situation.target_pods - serving, around=around)
    return {**counts, situation.target: max(there, situation.target_pods)}


def _settled(situation: Situation, *, roles: Roles, current: Variant, events: tuple[Event, ...]) -> Decision:
    """Replicas of every variant under the transition as it stands."""
    coming, around, transition = roles.coming, situation.around, situation.transition
    starting = transition is not None and transition.step == STARTING
    growing = starting or (in_place.is_in_place(transition) and is_active(transition))
    replicas = {one.name: one.replicas for one in situation.variants}
    asked = situation.asked_of(current)
    waiting = None
    if is_hopeless(current, situation):
        replicas[current.name] = 0
    else:
        count = next_replicas(current, asked=asked, around=around)
        replicas[current.name] = max(count, current.replicas) if growing else count
        if asked < replicas[current.name] and not growing:
            waiting = disturbance(current, around=around)
    lacking = asked - safe_serving(current, around=around)
    if starting and transition is not None and transition.to_variant is not None:
        replicas[transition.to_variant] = (
            max(
                next_replicas(coming, asked=situation.asked_of(coming), around=around),
                surplus_replicas(coming, lacking=lacking, around=around),
            )
            if coming is not None
            else situation.target_pods
        )
    replicas |= surplus_counts(roles.surplus, lacking=lacking, around=around)
    remove = _removable(situation, replicas)
    lowered = {one.name for one in situation.variants if replicas[one.name] < one.replicas}
    orders = in_place.orders(
        current,
        layout=in_place.wanted_layout(current, transition),
        change=transition.id if transition is not None else 0,
        terms=situation.in_place,
        around=around,
    )
    if orders and transition is not None and transition.step == RESHAPING:
        deadline = rfc3339(situation.now_s + situation.in_place.pod_allowance_s)
        transition = transition.model_copy(update={"deadline": deadline})
    return Decision(
        transition=transition,
        refused=situation.refused,
        roles=roles,
        replicas=replicas,
        remove=remove,
        destructive=frozenset(lowered | set(remove)),
        reshape=orders,
        waiting=waiting,
        events=events,
    )


def _is_at_strength(new: Variant, situation: Situation) -> bool:
    return _is_routed(new, situation.asked_of(new), situation)


def _is_routed(new: Variant, pods: int, situation: Situation) -> bool:
    """So many are Ready, safe, and known to the routers by now."""
    routed = [
        pod
        for pod in new.serving
        if not situation.around.at_risk(pod)
        and pod.ready_since_s is not None
        and situation.now_s - pod.ready_since_s >= ROUTED_AFTER_S
    ]
    return len(routed) >= pods and not situation.around.router_rolling


def _is_stuck(situation: Situation, roles: Roles) -> bool:
    """What was to leave is needed, because the one that stays has lost pods: a new spec need not wait for
    that."""
    transition, current = situation.transition, roles.current
    if (
        transition is None
        or transition.step == STARTING
        or current is None
        or in_place.is_in_place(transition)
    ):
        return False
    lacking = situation.asked_of(current) - safe_serving(current, around=situation.around)
    counts = surplus_counts(roles.surplus, lacking=lacking, around=situation.around)
    return all(counts[one.name] == one.replicas for one in roles.surplus)


def _hindrance(current: Variant, situation: Situation) -> str | None:
    """Why a change may not begin now."""
    if current.name in situation.around.held_replicas:
        return "another manager holds the replicas of the variant that serves"
    if situation.around.router_rolling:
        return "the router pods are being replaced"
    return None


def _removable(situation: Situation, replicas: Mapping[str, int]) -> tuple[str, ...]:
    """Deployments without replicas, wanted or left: only now is nothing lost by deleting them."""
    return tuple(
        one.name
        for one in situation.variants
        if one.replicas == 0
        and replicas.get(one.name, 0) == 0
        and not one.pods
        and one.settled
        and not (one.deployment.get("status") or {}).get("replicas")
    )


def _roles(situation: Situation) -> Roles:
    return assign_roles(
        situation.variants,
        transition=situation.transition,
        target=situation.target,
        asked_replicas=situation.target_pods,
    )


def _to(situation: Situation, transition: TransitionStatus, step: Step) -> Situation:
    return replace(situation, transition=transition.model_copy(update={"step": step}))


def _normal(reason: str, message: str) -> Event:
    return Event(type="Normal", reason=reason, message=message)
