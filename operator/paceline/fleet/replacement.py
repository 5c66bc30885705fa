"""What is done about a straggler: its pod is deleted, and its Deployment makes another at once; called by `plan`.

A pod that is deleted drains, so no request is lost, and the others have carried nearly all of the load already. One at a
time, and only while nothing else is under way. The status says so first, compare-and-swap, and whoever comes after keeps
to it: where the fault is not the pod's, each new pod would be slow again.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.api import StragglerStatus
from paceline.fleet.actions import Delete, Event
from paceline.fleet.observed import Observed
from paceline.fleet.replicas import disturbance
from paceline.fleet.roles import is_active
from paceline.fleet.situation import Decision, Situation
from paceline.fleet.straggler import Straggler
from paceline.fleet.timestamps import rfc3339, unix_s

EVERY_S = 600.0
"""From one straggler of a service to the next, by the clock of the status and not by the age of the pod: a service whose
pods are all young is helped at once, and one whose every pod turns slow loses no more than six starts an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    status: StragglerStatus | None
    """The last one, this one included."""

    delete: tuple[Delete, ...] = ()
    events: tuple[Event, ...] = ()


def replacement(observed: Observed, *, situation: Situation, decision: Decision) -> Replacement:
    before = observed.status.last_straggler if observed.status is not None else None
    found = _found(observed, decision=decision)
    if (
        found is None
        or not _is_quiet(observed, situation=situation, decision=decision)
        or _is_too_soon(found, before=before, now_s=observed.now_s)
    ):
        return Replacement(status=before)
    kept = _why_kept(observed)
    delete = (
        (Delete(api_version="v1", kind="Pod", name=found.pod, uid=found.uid, status_first=True),)
        if kept is None
        else ()
    )
    action = "Replaced" if kept is None else "Kept"
    if before is not None and (before.pod, before.action) == (found.pod, action):
        # Said already; a delete that failed is tried again.
        return Replacement(status=before, delete=delete)
    done = "it is drained, and another takes its place" if kept is None else f"it is kept, since {kept}"
    message = (
        f"Pod {found.pod} takes {found.mean_s * 1000:.1f} ms a token, {found.times:.1f} times the "
        f"{found.peers_s * 1000:.1f} ms of its peers (median): {done}."
    )
    reason = "StragglerReplaced" if kept is None else "StragglerFound"
    return Replacement(
        status=StragglerStatus(pod=found.pod, at=rfc3339(observed.now_s), action=action, message=message),
        delete=delete,
        events=(Event(type="Warning", reason=reason, message=message),),
    )


def _found(observed: Observed, *, decision: Decision) -> Straggler | None:
    """Of the variant that stays, and by figures that are not old."""
    advice, current = observed.advice, decision.roles.current
    if advice is None or advice.straggler is None or current is None:
        return None
    if not advice.is_valid(generation=observed.meta.generation, now_s=observed.now_s):
        return None
    found = advice.straggler
    return found if any(pod.uid == found.uid for pod in current.serving) else None


def _is_quiet(observed: Observed, *, situation: Situation, decision: Decision) -> bool:
    """Whether nothing else is under way: no pod starts or leaves, and none is about to."""
    current = decision.roles.current
    return (
        current is not None
        and not observed.service.spec.paused
        and not is_active(decision.transition)
        and all(decision.replicas[one.name] == one.replicas for one in situation.variants)
        and disturbance(current, around=situation.around) is None
        and len(current.live) == current.replicas
        and all(pod.serving or pod.finished for pod in observed.pods)
    )


def _is_too_soon(found: Straggler, *, before: StragglerStatus | None, now_s: float) -> bool:
    return before is not None and before.pod != found.pod and now_s - unix_s(before.at) < EVERY_S


def _why_kept(observed: Observed) -> str | None:
    spec = observed.service.spec
    if spec.scaling.stragglers == "Keep":
        return "spec.scaling.stragglers is Keep"
    if spec.scaling.mode == "Advisory":
        return "spec.scaling.mode Advisory changes nothing"
    if spec.router.policy == "CacheAware":
        return "spec.router.policy CacheAware may have sent it the longer prompts"
    return None
