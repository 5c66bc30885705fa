"""Which variant stays, which one comes, which ones leave: read from the last transition in the status.

    step of the last transition      stays   comes   leave
    Starting, Stopping               from    to      the rest
    Reshaping                        from    -       the rest      (in place: the pods of one variant, both names)
    Draining, Done                   to      -       the rest
    RollingBack, RolledBack          from    -       the rest
    none, or the named one is gone   the target if it is at full strength, else the one that serves most

A variant without replicas has no role: it only waits for its last pods to finish. Not so the two of a change by
recreate, of which either may be without any for a while. The last line is what holds after a lost status or a
Deployment deleted by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paceline.api import TransitionStatus
from paceline.fleet.variant import Variant

Step = Literal["Starting", "Stopping", "Reshaping", "Draining", "Done", "RollingBack", "RolledBack"]

STARTING: Step = "Starting"
STOPPING: Step = "Stopping"
RESHAPING: Step = "Reshaping"
DRAINING: Step = "Draining"
DONE: Step = "Done"
ROLLING_BACK: Step = "RollingBack"
ROLLED_BACK: Step = "RolledBack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    current: Variant | None
    coming: Variant | None
    surplus: tuple[Variant, ...]


def is_active(transition: TransitionStatus | None) -> bool:
    return transition is not None and transition.step in (
        STARTING,
        STOPPING,
        RESHAPING,
        DRAINING,
        ROLLING_BACK,
    )


def recreated(transition: TransitionStatus | None) -> tuple[str | None, ...]:
    """The two variants of which pods of one leave for those of the other, there or back; none where that is not so."""
    if transition is None or transition.recreate_gpus is None:
        return ()
    if transition.step not in (STARTING, STOPPING, ROLLING_BACK):
        return ()
    return transition.from_variant, transition.to_variant


def assign_roles(
    variants: tuple[Variant, ...],
    *,
    transition: TransitionStatus | None,
    target: str,
    asked_replicas: int,
) -> Roles:
    two = recreated(transition)
    alive = {one.name: one for one in variants if one.replicas > 0 or one.name in two}
    current = alive.get(_staying(transition) or "")
    if current is None:
        current = _strongest(tuple(alive.values()), target=target, asked_replicas=asked_replicas)
    coming = None
    if transition is not None and transition.step in (STARTING, STOPPING) and current is not None:
        named = alive.get(transition.to_variant or "")
        coming = named if named is not current else None
    surplus = tuple(one for one in alive.values() if one is not current and one is not coming)
    return Roles(current=current, coming=coming, surplus=surplus)


def _staying(transition: TransitionStatus | None) -> str | None:
    if transition is None:
        return None
    return transition.to_variant if transition.step in (DRAINING, DONE) else transition.from_variant


def _strongest(alive: tuple[Variant, ...], *, target: str, asked_replicas: int) -> Variant | None:
    for one in alive:
        if one.name == target and len(one.serving) >= asked_replicas:
            return one
    return max(alive, key=lambda one: (len(one.serving), one.has_served, -one.created_at_s), default=None)
