"""The next step of the engines: replicas of each variant, and the change from one variant to the next.

A change of what shapes an engine pod is a *surge*: new pods first, old ones after. Where the scheduler finds no GPUs
for it, and the spec allows it, the pods that serve change *in place* (`in_place`): at once where the planner has seen
that there are none. What is still without GPUs at the deadline for that is made by *recreate*, where the spec allows that:
old pods leave first (`recreate`).

    (none) --> Starting --> Draining --> Done          the target is Ready: the old variant leaves
       |        ^ |  |
       |        | |  +---v
       +--------|-|-> Reshaping --> Done                no GPUs for it: the new pods go, the old ones change
                | |      |
                v |      |
          Stopping|      |                              by recreate: an old pod leaves, a new one starts, and so on
                | |      |
                +-+------+--> RollingBack --> RolledBack  deadline, unschedulable, a refusal, another spec

* One at a time: only one variant ever comes. In `Starting` the old one is untouched, except that it may
  grow.
* `Draining` goes only forward. It ends when the old variant has no replicas; its pods drain aside, and
  their GPUs are counted as draining until they are gone.
* Variants that leave, or one that comes and is asked for fewer by now, keep as many serving pods as the one
  that stays still lacks, so no step of ours takes the service below what is asked for, in whatever order
  the cluster moves.
* By recreate there are fewer than that for a while. The ways there and back keep what serves but the pods that the next
  one needs the GPUs of.
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

from paceline.api import TransitionStatus
from paceline.fleet import in_place, recreate
from paceline.fleet.actions import Event
from paceline.fleet.advance import advance, normal, reshaping
from paceline.fleet.replicas import (
    disturbance,
    next_replicas,
    safe_serving,
    surplus_counts,
    surplus_replicas,
)
from paceline.fleet.roles import (
    DRAINING,
    RESHAPING,
    STARTING,
    Roles,
    assign_roles,
    is_active,
    recreated,
)
from paceline.fleet.situation import INFEASIBLE, REFUSED, Decision, Situation
from paceline.fleet.start_failure import is_hopeless, refused_before_serving
from paceline.fleet.timestamps import rfc3339
from paceline.fleet.variant import Variant


def decide(situation: Situation) -> Decision:
    situation, events = advance(situation)
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
    events = (*events, normal("TransitionStarted", message))
    situation = replace(situation, transition=transition)
    if situation.no_room_beside and (told := reshaping(situation, transition, current)) is not None:
        situation, news = told
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
    replicas |= recreate.counts(situation)
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


def _is_stuck(situation: Situation, roles: Roles) -> bool:
    """What was to leave is needed, because the one that stays has lost pods: a new spec need not wait for
    that."""
    transition, current = situation.transition, roles.current
    if (
        transition is None
        or transition.step == STARTING
        or recreated(transition)
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
    two = recreated(situation.transition)
    return tuple(
        one.name
        for one in situation.variants
        if one.name not in two
        and one.replicas == 0
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
