"""Whether a service that may go to zero goes there, and whether it comes back. The planner never decides on zero:
this rule stands before it, and while it says zero the planner is not asked. Pure.

    awake ──(idle for `goal.idle_s`, and every gate says so now)──> at zero
    at zero ──(a gate holds a request, or one has arrived there)──> awake, with one replica

Unknown is never zero. Idle is what known and fresh figures prove, up to the moment of their samples: a look that
lacks one proves nothing, and once such looks leave a gap the time begins anew. And no service goes to zero that
could not be woken: each of its gates must answer now, since at zero the gates alone tell that somebody waits
(Prometheus would tell a scrape later).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from paceline.planner.decision import Decision, Reason
from paceline.planner.observation import Observation, Shape
from paceline.planner.state import PlannerState

WAKES_WITH: Final = 1
"""Replicas. The planner adds more as soon as the arrivals have a rate, while this one still starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What one gate says of itself when it is asked."""

    held: float
    """Requests that wait for an engine."""

    in_flight: float
    """Requests that have arrived and whose answer has not ended, held ones too."""

    arrivals: float
    """Requests for an answer since the gate began."""


Doors = Mapping[str, Door | None]
"""Of every Ready gate, by its name; None where it did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The time up to now in which nobody asked for anything, as far as it is proven. In Unix time."""

    since_s: float | None = None
    until_s: float | None = None

    @property
    def lasted_s(self) -> float:
        return self.until_s - self.since_s if self.since_s is not None and self.until_s is not None else 0.0


def rested(rest: Rest, observation: Observation) -> Rest:
    """The rest after one more look."""
    traffic = observation.traffic
    figures = (traffic.requests_per_s, traffic.in_flight_requests, traffic.held_requests)
    if any((one.fresh or 0.0) > 0 for one in figures):
        return Rest()
    if any(one.fresh is None or one.age_s is None for one in figures):
        return rest
    seen_s = observation.now_s - max(one.age_s or 0.0 for one in figures)
    # A rate over a window has samples of at least its later half: looks no further apart leave no gap.
    if rest.until_s is None or seen_s - rest.until_s > traffic.window_s / 2:
        return Rest(since_s=seen_s, until_s=seen_s)
    return Rest(since_s=rest.since_s, until_s=max(rest.until_s, seen_s))


def is_due(rest: Rest, observation: Observation) -> bool:
    """Whether the service has been idle for long enough, so that its gates are to be asked."""
    idle_s = observation.goal.idle_s
    return idle_s is not None and not observation.changing and rest.lasted_s >= idle_s


def kept_awake(observation: Observation, doors: Doors) -> str | None:
    """Why a service that is due stays, in a sentence with the way out; None where nothing speaks against zero."""
    if not doors:
        return "no router pod is Ready, so nobody could hold a request."
    if (silent := _silent(doors)) is not None:
        return f"{silent} A service at zero is woken by what its gates say."
    if any(door is not None and (door.in_flight or door.held) for door in doors.values()):
        return "a request is under way."
    start_s, hold_s = _start_s(observation), observation.goal.hold_s
    if start_s is not None and start_s > hold_s:
        return (
            f"half of its starts took {start_s:.0f} s or longer, and a request is held for {hold_s:.0f} s. Write "
            "spec.router.hold.maxSeconds above the former, or replicaBounds.min: 1."
        )
    return None


def to_zero(observation: Observation, rest: Rest, *, size: int, state: PlannerState) -> Decision:
    """`size` is what the service is to wake with."""
    message = f"nobody has asked for anything for {rest.lasted_s:.0f} s"
    return _decision(Shape(tensor_parallel_size=size, replicas=0), "Idle", message, state=state)


def heard(doors: Doors, *, before: Doors) -> str | None:
    """What gates of a service at zero say of somebody who wants an answer; None where nobody does. Somebody who
    came and left between two looks is a sign too: the next one is not far."""
    held = sum(door.held for door in doors.values() if door is not None)
    if held > 0:
        return f"{held:.0f} requests are held at the gates" if held > 1 else "a request is held at a gate"
    for name, door in doors.items():
        last = before.get(name)
        if door is not None and last is not None and door.arrivals > last.arrivals:
            return "a request has arrived"
    return None


def at_zero(observation: Observation, *, called: str | None, size: int, state: PlannerState) -> Decision:
    """To stay, or to wake with `size`; `called` is what was `heard`."""
    traffic = observation.traffic
    if called is None and any(
        (one.fresh or 0) > 0 for one in (traffic.held_requests, traffic.requests_per_s)
    ):
        called = "Prometheus says that a request has arrived"
    if called is None:
        shape = Shape(tensor_parallel_size=size, replicas=0)
        return _decision(shape, "Idle", "nobody has asked for anything", state=state)
    return _decision(
        Shape(tensor_parallel_size=size, replicas=WAKES_WITH), "RequestHeld", called, state=state
    )


def cannot_be_woken(observation: Observation, doors: Doors) -> str | None:
    """Why a request that a gate of a service at zero holds might stay unseen, with the way out. The service stays
    at zero all the same: unknown is no request either."""
    if observation.traffic.held_requests.fresh is not None:
        return None
    if not doors:
        return "no router pod is Ready, and Prometheus does not tell whether a request is held."
    return _silent(doors)


def _silent(doors: Doors) -> str | None:
    names = sorted(name for name, door in doors.items() if door is None)
    if not names:
        return None
    return (
        f"{len(names)} of {len(doors)} Ready router pods ({', '.join(names[:3])}) do not answer the operator. Let it "
        "reach their port 9090."
    )


def _start_s(observation: Observation) -> float | None:
    size = observation.current.tensor_parallel_size if observation.current is not None else None
    return next((one.p50_s for one in observation.start_times if one.tensor_parallel_size == size), None)


def _decision(shape: Shape, reason: Reason, message: str, *, state: PlannerState) -> Decision:
    return Decision(
        shape=shape,
        reason=reason,
        message=message,
        feasible=None,
        limit="None",
        predicted=None,
        candidates=(),
        would_change=("a request that arrives",) if not shape.replicas else (),
        confidence=1.0,
        state=state,
    )
