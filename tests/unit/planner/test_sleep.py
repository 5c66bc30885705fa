"""To zero and back: only what is known puts a service to sleep, and nobody who can be heard waits in vain."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.planner import (
    MISSING,
    Door,
    Doors,
    Figure,
    Observation,
    PlannerState,
    Rest,
    Shape,
    StartTime,
    Traffic,
    sleep,
)
from tests.unit.planner.looks import goal

NOW_S, WINDOW_S, IDLE_S = 1_000_000.0, 60.0, 600.0
QUIET = Door(held=0, in_flight=0, arrivals=7)


def figure(value: float, *, age_s: float | None = 5.0, trust: Any = "Fresh") -> Figure:
    return Figure(value=value, age_s=age_s, trust=trust)


def look(at_s: float = 0.0, **changes: Any) -> Observation:
    """A quiet look, so many seconds after the beginning. `rate`, `in_flight` and `held` are figures."""
    traffic = Traffic(
        requests_per_s=changes.pop("rate", figure(0)),
        in_flight_requests=changes.pop("in_flight", figure(0)),
        held_requests=changes.pop("held", figure(0)),
        window_s=WINDOW_S,
    )
    hold_s = changes.pop("hold_s", 300.0)
    made = Observation(
        now_s=NOW_S + at_s,
        goal=goal(min_replicas=0, idle_s=changes.pop("idle_s", IDLE_S), hold_s=hold_s),
        traffic=traffic,
        attainment=MISSING,
        groups=(),
        nodes=(),
        current=Shape(tensor_parallel_size=2, replicas=1),
    )
    return replace(made, **changes)


def rest_of(*looks: Observation) -> Rest:
    rest = Rest()
    for one in looks:
        rest = sleep.rested(rest, one)
    return rest


def quiet_looks(*, until_s: float = IDLE_S, every_s: float = 15.0) -> list[Observation]:
    return [look(number * every_s) for number in range(int(until_s / every_s) + 1)]


def test_a_service_is_due_after_the_idle_time_and_not_before() -> None:
    looks = quiet_looks()
    assert not sleep.is_due(rest_of(*looks[:-1]), looks[-2])
    assert sleep.is_due(rest_of(*looks), looks[-1])


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"rate": figure(0.1)}, id="a request has arrived"),
        pytest.param({"in_flight": figure(1)}, id="one is in flight"),
        pytest.param({"held": figure(1)}, id="one is held"),
        pytest.param({"rate": figure(0.1), "held": MISSING}, id="one has arrived and the rest is unknown"),
    ],
)
def test_whoever_asks_for_something_begins_the_time_anew(asked: dict[str, Any]) -> None:
    looks = quiet_looks()
    looks[-2] = look(IDLE_S - 15, **asked)
    assert rest_of(*looks).lasted_s == 0


UNKNOWN = [
    MISSING,
    figure(0, trust="Stale"),
    figure(0, trust="Contradicted"),
    figure(0, trust="Thin"),
    figure(0, age_s=None),
]


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("name", ["rate", "in_flight", "held"])
def test_one_look_without_a_figure_neither_counts_nor_begins_anew(name: str, unknown: Figure) -> None:
    looks = quiet_looks(until_s=IDLE_S + 15)
    looks[5] = look(75, **{name: unknown})
    assert sleep.is_due(rest_of(*looks), looks[-1])
    looks[-1] = look(IDLE_S + 15, **{name: unknown})
    assert rest_of(*looks).lasted_s == IDLE_S


def test_a_gap_that_no_look_covers_begins_the_time_anew() -> None:
    looks = quiet_looks()
    del looks[10:13]
    assert rest_of(*looks).lasted_s < IDLE_S


def test_a_look_proves_nothing_after_its_samples() -> None:
    """Woken at 0: figures of before that say nothing of the request that is held now."""
    old = [look(at_s, held=figure(0, age_s=at_s + 20.0)) for at_s in (0.0, 5.0, 10.0, 15.0, 20.0)]
    assert rest_of(*old).lasted_s == 0


looks = st.lists(
    st.tuples(
        st.floats(0.5, 120),
        *(st.sampled_from([figure(0), figure(0, age_s=30.0), figure(1), *UNKNOWN]) for _ in range(3)),
    ),
    max_size=60,
)


@given(looks)
def test_whatever_is_seen_unknown_never_sleeps(seen: list[tuple[float, Figure, Figure, Figure]]) -> None:
    """Every second of a rest lies near a look at which all three figures were known and zero."""
    rest, at_s, known = Rest(), 0.0, []
    for step_s, rate, in_flight, held in seen:
        at_s += step_s
        observation = look(at_s, rate=rate, in_flight=in_flight, held=held)
        figures = (rate, in_flight, held)
        ages = [one.age_s for one in figures if one.fresh is not None and one.age_s is not None]
        if len(ages) == 3 and not any(one.fresh for one in figures):
            known.append(observation.now_s - max(ages))
        if any((one.fresh or 0) > 0 for one in figures):
            known.clear()
        rest = sleep.rested(rest, observation)
        if rest.lasted_s:
            assert rest.since_s is not None
            assert rest.until_s is not None
            proven = sorted({rest.since_s, rest.until_s, *(one for one in known if one >= rest.since_s)})
            assert rest.since_s in known
            assert rest.until_s in known
            assert all(b - a <= WINDOW_S / 2 for a, b in itertools.pairwise(proven))


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        pytest.param({}, True, id="may go to zero"),
        pytest.param({"idle_s": None}, False, id="may not"),
        pytest.param({"changing": True}, False, id="a change is under way"),
    ],
)
def test_what_may_go_to_zero(changes: dict[str, Any], due: bool) -> None:
    assert sleep.is_due(rest_of(*quiet_looks()), look(IDLE_S, **changes)) is due


@pytest.mark.parametrize(
    ("doors", "says"),
    [
        pytest.param({}, "no router pod is Ready", id="no gate"),
        pytest.param({"a": QUIET, "b": None}, "(b) do not answer", id="one is silent"),
        pytest.param({"a": QUIET, "b": replace(QUIET, in_flight=1)}, "under way", id="one is busy"),
    ],
)
def test_a_service_that_could_not_be_woken_stays_awake(doors: Doors, says: str) -> None:
    assert sleep.kept_awake(look(), {"a": QUIET, "b": QUIET}) is None
    assert says in str(sleep.kept_awake(look(), doors))


def test_a_service_that_starts_for_longer_than_requests_are_held_stays_awake() -> None:
    starts = (StartTime(tensor_parallel_size=2, p50_s=118, p90_s=140, starts=3),)
    doors = {"a": QUIET}
    assert sleep.kept_awake(look(start_times=starts), doors) is None
    why = sleep.kept_awake(look(start_times=starts, hold_s=30.0), doors)
    assert "118 s" in str(why)
    assert "hold.maxSeconds" in str(why)
    other = (replace(starts[0], tensor_parallel_size=8),)
    assert sleep.kept_awake(look(start_times=other, hold_s=30.0), doors) is None


@pytest.mark.parametrize(
    ("doors", "before", "calls"),
    [
        pytest.param({"a": QUIET}, {"a": QUIET}, False, id="quiet"),
        pytest.param({"a": replace(QUIET, held=1)}, {}, True, id="held, at the first look"),
        pytest.param({"a": QUIET, "b": replace(QUIET, held=2)}, {"a": QUIET}, True, id="held at one of two"),
        pytest.param({"a": replace(QUIET, arrivals=8)}, {"a": QUIET}, True, id="came and left"),
        pytest.param({"a": replace(QUIET, arrivals=0)}, {"a": QUIET}, False, id="the gate began anew"),
        pytest.param({"b": replace(QUIET, arrivals=8)}, {"a": QUIET}, False, id="another gate"),
        pytest.param({"a": None}, {"a": QUIET}, False, id="silent"),
        pytest.param({"a": None, "b": replace(QUIET, held=1)}, {}, True, id="held beside a silent one"),
    ],
)
def test_who_waits_at_a_gate_is_heard(doors: Doors, before: Doors, calls: bool) -> None:
    assert (sleep.heard(doors, before=before) is not None) is calls


ZERO = Shape(tensor_parallel_size=2, replicas=0)


@pytest.mark.parametrize(
    ("changes", "called", "replicas"),
    [
        pytest.param({}, None, 0, id="nobody"),
        pytest.param({}, "a request is held", 1, id="a gate"),
        pytest.param({"held": figure(1)}, None, 1, id="held, by Prometheus"),
        pytest.param({"rate": figure(0.1)}, None, 1, id="arrived, by Prometheus"),
        pytest.param({"rate": figure(9, trust="Stale"), "held": MISSING}, None, 0, id="not known"),
        pytest.param(
            {"rate": MISSING, "held": MISSING}, "a request is held", 1, id="a gate, without metrics"
        ),
    ],
)
def test_a_request_wakes_and_nothing_unknown_does(
    changes: dict[str, Any], called: str | None, replicas: int
) -> None:
    decision = sleep.at_zero(look(current=ZERO, **changes), called=called, size=2, state=PlannerState())
    assert decision.shape == Shape(tensor_parallel_size=2, replicas=replicas)
    assert decision.reason == ("RequestHeld" if replicas else "Idle")


@pytest.mark.parametrize(
    ("held", "doors", "says"),
    [
        pytest.param(MISSING, {}, "no router pod is Ready", id="nobody to ask"),
        pytest.param(MISSING, {"a": None, "b": QUIET}, "(a) do not answer", id="one is silent"),
        pytest.param(MISSING, {"a": QUIET}, None, id="the gates answer"),
        pytest.param(figure(0), {"a": None}, None, id="Prometheus tells"),
    ],
)
def test_a_service_that_cannot_be_woken_says_so(held: Figure, doors: Doors, says: str | None) -> None:
    why = sleep.cannot_be_woken(look(current=ZERO, held=held), doors)
    assert why is None if says is None else says in str(why)
