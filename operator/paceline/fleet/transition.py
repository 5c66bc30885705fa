"""The next step of the engines: replicas of each variant, and the change from one variant to the next.

A change of what shapes an engine pod is a *surge*: new pods first, old ones after.

    (none) --> Starting --> Draining --> Done          the target is Ready: the old variant leaves
                  |
                  +-------> RollingBack --> RolledBack  deadline, unschedulable, a refusal, or another spec

* One at a time: only one variant ever comes. In `Starting` the old one is untouched, except that it may
  grow.
* `Draining` goes only forward. It ends when the old variant has no replicas; its pods drain aside, and
  their GPUs are counted as draining until they are gone.
* A variant that leaves, or that comes and is asked for fewer by now, keeps as many serving pods as the one
  that stays still lacks, so no step of ours takes the service below what is asked for, in whatever order
  the cluster moves.
* A variant that never served has nothing to keep: it leaves at once, so that it holds no GPUs that the next
  needs.

Everything follows from what is observed. A step is written to the status, compare-and-swap, before what it
allows is done (`Decision.destructive`): after a crash between the two, the next plan finds the step and
goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from paceline.api import Refused, Shape, TransitionStatus
from paceline.fleet.actions import Event
from paceline.fleet.replicas import (
    Surroundings,
    disturbance,
    next_replicas,
    safe_serving,
    surplus_replicas,
)
from paceline.fleet.roles import (
    DONE,
    DRAINING,
    ROLLED_BACK,
    ROLLING_BACK,
    STARTING,
    Roles,
    Step,
    assign_roles,
    is_active,
)
from paceline.fleet.timestamps import rfc3339, unix_s
from paceline.fleet.variant import Variant

REFUSED = "Refused"
"""By the launcher, before it loaded anything: a second attempt would end the same way."""

INFEASIBLE = "Infeasible"
"""By the facts of the checkpoint, before anything was made."""

ROUTED_AFTER_S = 5.0
"""Time that a pod must have been Ready before another may leave for it: a router was seen to take up to 3 s
to list it, and the gate compares its list every 5 s."""

UNSCHEDULABLE = "Unschedulable"
DEADLINE_EXCEEDED = "ReadyDeadlineExceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    now_s: float
    generation: int
    variants: tuple[Variant, ...]
    target: str
    """Name of the variant that the spec asks for; it need not exist."""

    asked: Shape
    transition: TransitionStatus | None
    refused: Refused | None
    """Of this generation; an older refusal binds nobody."""

    refusal: Refused | None
    """What is known to speak against the target before anything of it is made."""

    ready_deadline_s: float
    pending_deadline_s: float
    around: Surroundings

    def find(self, name: str | None) -> Variant | None:
        return next((one for one in self.variants if one.name == name), None)

    def asked_of(self, variant: Variant) -> int:
        """Replicas that this variant owes. A number that was asked for another tensor-parallel size does
        not count."""
        same_size = variant.tensor_parallel_size == self.asked.tensor_parallel_size
        return self.asked.replicas if same_size else variant.asked_replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    transition: TransitionStatus | None
    refused: Refused | None
    roles: Roles
    replicas: Mapping[str, int]
    """By variant: every one that has a Deployment, and the target if it is to get one."""

    remove: tuple[str, ...] = ()
    destructive: frozenset[str] = frozenset()
    """Variants whose change must wait until the status with this transition is written."""

    waiting: str | None = None
    """Why a change that the spec asks for has not begun, or a decrement has not been made."""

    events: tuple[Event, ...] = ()


def decide(situation: Situation) -> Decision:
    situation, events = _advance(situation)
    roles = _roles(situation)
    current = roles.current
    if current is None:
        return _first_start(situation, roles=roles, events=events)
    situation = replace(situation, refused=situation.refused or _refused_before_serving(current, situation))
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
    match transition.step:
        case "Starting" if not old_lives:
            return _to(situation, transition, DONE), ()
        case "Starting" if situation.target != transition.to_variant:
            message = f"The spec changed while the change {names} was under way: it is taken back"
            return _to(situation, transition, ROLLING_BACK), (_normal("TransitionCancelled", message),)
        case "Starting" if new is not None and _is_at_strength(new, situation):
            message = f"All {situation.asked.replicas} replicas of {new.name} are Ready: the old ones leave"
            return _to(situation, transition, DRAINING), (_normal("TransitionSwitched", message),)
        case "Starting" if (failure := _failure(new, situation)) is not None:
            message = f"Change {names} rolled back: {failure.message}"
            event = Event(type="Warning", reason="TransitionRolledBack", message=message)
            return replace(_to(situation, transition, ROLLING_BACK), refused=failure), (event,)
        case "Draining" if not new_lives:
            return _to(situation, transition, ROLLED_BACK), ()
        case "Draining" if not any(one.replicas for one in situation.variants if one is not new):
            return _to(situation, transition, DONE), (_normal("TransitionDone", f"Change {names} is done"),)
        case "RollingBack" if not new_lives:
            return _to(situation, transition, ROLLED_BACK), ()
    return situation, ()


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
        replicas[situation.target] = situation.asked.replicas
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
    situation = replace(situation, transition=transition)
    roles = _roles(situation)
    begun = _settled(
        situation,
        roles=roles,
        current=roles.current or current,
        events=(*events, _normal("TransitionStarted", message)),
    )
    replicas, changed = dict(begun.replicas), {situation.target}
    if step == DRAINING:
        replicas[current.name] = 0
        changed.add(current.name)
        if not replicas.get(situation.target):
            replicas[situation.target] = situation.asked.replicas
    return replace(
        begun,
        replicas=replicas,
        remove=tuple(name for name in begun.remove if name != situation.target),
        destructive=begun.destructive | changed,
    )


def _settled(situation: Situation, *, roles: Roles, current: Variant, events: tuple[Event, ...]) -> Decision:
    """Replicas of every variant under the transition as it stands."""
    coming, around, transition = roles.coming, situation.around, situation.transition
    starting = transition is not None and transition.step == STARTING
    replicas = {one.name: one.replicas for one in situation.variants}
    asked = situation.asked_of(current)
    waiting = None
    if _is_hopeless(current, situation):
        replicas[current.name] = 0
    else:
        count = next_replicas(current, asked=asked, around=around)
        replicas[current.name] = max(count, current.replicas) if starting else count
        if asked < replicas[current.name] and not starting:
            waiting = disturbance(current, around=around)
    lacking = asked - safe_serving(current, around=around)
    if starting and transition is not None and transition.to_variant is not None:
        replicas[transition.to_variant] = (
            max(
                next_replicas(coming, asked=situation.asked.replicas, around=around),
                surplus_replicas(coming, lacking=lacking, around=around),
            )
            if coming is not None
            else situation.asked.replicas
        )
    for one in roles.surplus:
        replicas[one.name] = surplus_replicas(one, lacking=lacking, around=around)
    remove = _removable(situation, replicas)
    lowered = {one.name for one in situation.variants if replicas[one.name] < one.replicas}
    return Decision(
        transition=transition,
        refused=situation.refused,
        roles=roles,
        replicas=replicas,
        remove=remove,
        destructive=frozenset(lowered | set(remove)),
        waiting=waiting,
        events=events,
    )


def _failure(new: Variant | None, situation: Situation) -> Refused | None:
    """Why the coming variant will not make it. None as long as it may."""
    transition = situation.transition
    if transition is None:
        return None
    if new is not None and (verdict := _refusal_of(new, situation)) is not None:
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
                    "free the capacity or ask for less, and change the spec to try again"
                ),
            )
    serving = safe_serving(new, around=situation.around) if new is not None else 0
    late = transition.deadline is not None and situation.now_s >= unix_s(transition.deadline)
    if not late or serving >= situation.asked.replicas:
        return None
    reasons = (pod.why_not_ready for pod in live if not pod.ready)
    why = next((reason for reason in reasons if reason is not None), "no reason given")
    return Refused(
        generation=situation.generation,
        field="spec.transition.readyDeadlineSeconds",
        reason=DEADLINE_EXCEEDED,
        message=(
            f"{serving} of {situation.asked.replicas} new pods were Ready after "
            f"{int(situation.now_s - started_s)} s ({why[:600]}): mend what keeps them or allow more "
            "time, and change the spec to try again"
        ),
    )


def _refusal_of(variant: Variant, situation: Situation) -> Refused | None:
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


def _refused_before_serving(current: Variant, situation: Situation) -> Refused | None:
    """The launcher's refusal of a variant that has nothing before it to go back to."""
    if current.has_served or current.name != situation.target:
        return None
    return _refusal_of(current, situation)


def _is_hopeless(current: Variant, situation: Situation) -> bool:
    """It never served, and its own launcher refuses it: it must not hold GPUs until somebody edits the
    spec."""
    return situation.refused is not None and _refused_before_serving(current, situation) is not None


def _is_at_strength(new: Variant, situation: Situation) -> bool:
    """Ready, safe, and known to the routers by now."""
    routed = [
        pod
        for pod in new.serving
        if not situation.around.at_risk(pod)
        and pod.ready_since_s is not None
        and situation.now_s - pod.ready_since_s >= ROUTED_AFTER_S
    ]
    return len(routed) >= situation.asked.replicas and not situation.around.router_rolling


def _is_stuck(situation: Situation, roles: Roles) -> bool:
    """What was to leave is needed, because the one that stays has lost pods: a new spec need not wait for
    that."""
    transition, current = situation.transition, roles.current
    if transition is None or transition.step == STARTING or current is None:
        return False
    lacking = situation.asked_of(current) - safe_serving(current, around=situation.around)
    return all(
        surplus_replicas(one, lacking=lacking, around=situation.around) == one.replicas
        for one in roles.surplus
    )


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
        asked_replicas=situation.asked.replicas,
    )


def _to(situation: Situation, transition: TransitionStatus, step: Step) -> Situation:
    return replace(situation, transition=transition.model_copy(update={"step": step}))


def _normal(reason: str, message: str) -> Event:
    return Event(type="Normal", reason=reason, message=message)
