"""Another tensor-parallel size within the pods: where it may be, what it costs, and whole pods ever after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paceline.planner import (
    Decision,
    InPlace,
    Observation,
    Planner,
    PlannerSettings,
    PlannerState,
    Shape,
    decision_from_json,
    decision_to_json,
    observation_from_json,
    observation_to_json,
)
from paceline.planner.capacity import room
from tests.unit.planner.looks import TIMING, goal, look, nodes, shape

ONE_POD = InPlace(pods=1, gpus_per_pod=8, away_s=45.0, max_hold_s=120.0, most_held=2000)
TWO_PODS = replace(ONE_POD, pods=2, max_hold_s=0.0)
SIZES = (4, 8)

BUSY = 13.0
"""Requests a second that one engine of size 8 does not carry, and two of size 4 do."""

TIGHT = goal(tpot_ms=10, allowed_tensor_parallel_sizes=SIZES)
"""Nothing of size 4 is fast enough for it."""

ONE_NODE = goal(max_gpus=8, allowed_tensor_parallel_sizes=SIZES)


def full(
    rate: float, current: Shape, *, means: InPlace | None, beside: int = 0, **changed: Any
) -> Observation:
    """All nodes are full, but for `beside` GPUs that a surge would find."""
    fields: dict[str, Any] = {
        "goal": goal(allowed_tensor_parallel_sizes=SIZES),
        "nodes": nodes(-(-current.gpus // 8), used=current.gpus),
        "in_place": means,
        "no_room_beside": tuple(
            shape(size, beside // size + 1) for size in SIZES if size != current.tensor_parallel_size
        ),
    }
    return look(rate, current, **(fields | changed))


def decide(seen: Observation, state: PlannerState | None = None, **settings: Any) -> Decision:
    return Planner(timing=TIMING, settings=PlannerSettings(**settings)).decide(seen, state)


# -- Where it may be ------------------------------------------------------------------------------------------


def test_a_full_node_is_divided_anew_where_that_carries_the_load() -> None:
    decision = decide(full(BUSY, shape(8, 1), means=ONE_POD))
    assert decision.shape == shape(4, 2)
    assert decision.reason == "QueueingAboveTarget"
    assert decision.in_place
    assert decision.switch is not None
    assert (decision.switch.gpus_beside, decision.switch.hold_s) == (0, 45.0)
    assert decision.switch.missed == pytest.approx((decision.demand_per_s or 0) * 45, rel=0.01)
    assert "in place, as there is no room beside: requests are held for about 45 s" in decision.message


def test_and_back_where_one_request_alone_is_too_slow() -> None:
    decision = decide(full(0.3, shape(4, 2), means=ONE_POD, replicas_per_pod=2, goal=TIGHT))
    assert (decision.shape, decision.reason, decision.in_place) == (shape(8, 1), "FloorAboveTarget", True)


def test_where_it_is_not_allowed_the_size_stays() -> None:
    decision = decide(full(BUSY, shape(8, 1), means=None))
    assert decision.shape == shape(8, 1)
    assert decision.switch is None
    assert decision.feasible is False


def test_new_pods_are_preferred_where_there_is_room_for_them() -> None:
    seen = full(BUSY, shape(8, 1), means=ONE_POD, beside=8, nodes=nodes(2, used=8), goal=ONE_NODE)
    decision = decide(seen)
    assert decision.shape == shape(4, 2)
    assert decision.switch is not None
    assert (decision.switch.how, decision.switch.gpus_beside, decision.switch.missed) == ("Surge", 8, 0.0)


@pytest.mark.parametrize(
    ("means", "why"),
    [
        pytest.param(replace(ONE_POD, max_hold_s=0.0), "spec.transition.maxHoldSeconds is 0", id="no hold"),
        pytest.param(replace(ONE_POD, max_hold_s=45.0), "held for 45 s and more", id="the hold is too short"),
        pytest.param(replace(ONE_POD, most_held=200), "the gates hold 200", id="too many come meanwhile"),
    ],
)
def test_a_single_pod_stays_as_it_is_where_requests_would_be_lost(means: InPlace, why: str) -> None:
    decision = decide(full(BUSY, shape(8, 1), means=means))
    assert decision.shape == shape(8, 1)
    assert any("TP4 in place" in said and why in said for said in decision.would_change)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"refused": (shape(4, 2),)}, id="it failed lately"),
        pytest.param({"changing": True}, id="a change is under way"),
        pytest.param({"goal": goal(max_replicas=1, allowed_tensor_parallel_sizes=SIZES)}, id="bounds"),
        pytest.param({"goal": goal(max_gpus=4, allowed_tensor_parallel_sizes=SIZES)}, id="budget"),
        pytest.param({"in_place": replace(ONE_POD, gpus_per_pod=6)}, id="it does not come out even"),
    ],
)
def test_limits_hold_in_place_too(changed: dict[str, Any]) -> None:
    seen = full(BUSY, shape(8, 1), means=ONE_POD)
    assert room(replace(seen, **changed), 4).in_place == ()
    assert room(seen, 4).in_place == (2,)


def test_two_changes_in_place_are_never_nearer_than_the_dwell_time() -> None:
    decision = decide(full(BUSY, shape(8, 1), means=ONE_POD), PlannerState(size_changed_at_s=-600.0))
    assert (decision.shape, decision.reason) == (shape(8, 1), "Dwelling")


# -- What it costs --------------------------------------------------------------------------------------------


def test_what_is_held_misses_and_counts_against_the_error_budget() -> None:
    """45 s of an expected stay of four hours are 0.3 % of the requests; a stay of an hour would make them 1.3 %."""
    seen = full(BUSY, shape(8, 1), means=ONE_POD)
    plain = decide(replace(seen, no_room_beside=(), nodes=nodes(2, used=8), goal=ONE_NODE))
    charged = decide(seen)
    assert plain.predicted is not None
    assert charged.predicted is not None
    cost = plain.predicted.attainment - charged.predicted.attainment
    assert cost == pytest.approx(45 / PlannerSettings().size_stay_s, rel=0.01)
    assert decide(seen, size_stay_s=3600.0).reason != "QueueingAboveTarget"


def test_of_several_pods_the_others_must_carry_the_load() -> None:
    quiet = decide(full(0.3, shape(4, 4), means=TWO_PODS, replicas_per_pod=2, goal=TIGHT))
    assert (quiet.shape.tensor_parallel_size, quiet.in_place) == (8, True)
    assert quiet.switch is not None
    assert quiet.switch.hold_s == 0.0
    busy = decide(full(2.3 * BUSY, shape(8, 2), means=TWO_PODS))
    assert busy.shape == shape(8, 2)
    assert any("while one of 2 pods is away" in said for said in busy.would_change)


def watched(rate: float, current: Shape, **settings: Any) -> list[Decision]:
    """A quarter of an hour on full nodes, each decision carried out at once."""
    planner, state = Planner(timing=TIMING, settings=PlannerSettings(**settings)), PlannerState()
    made: list[Decision] = []
    for tick in range(60):
        seen = full(
            rate,
            current,
            means=replace(TWO_PODS, pods=current.gpus // 8),
            now_s=15.0 * tick,
            replicas_per_pod=8 // current.tensor_parallel_size,
        )
        made.append(planner.decide(seen, state))
        state, current = made[-1].state, made[-1].shape
    return made


def test_a_saving_in_place_pays_for_no_gpus_beside() -> None:
    """Of three pods two are enough, once they are divided: four replicas of size 4 do what three of size 8 do. For
    ten minutes sixteen GPUs beside them, for a start and a drain, would not pay."""
    made = watched(2.2 * BUSY, shape(8, 3), size_stay_s=600.0)
    assert made[-1].shape == shape(4, 4)
    (switch,) = (one.switch for one in made if one.switch is not None)
    assert switch.how == "InPlace"
    assert 0 < switch.missed < 2.2 * BUSY * 3 * 45 * 0.01


def test_no_saving_is_worth_that_more_miss_meanwhile_than_the_objective_leaves() -> None:
    """The third pod is needed while another is away."""
    made = watched(2.4 * BUSY, shape(8, 3))
    assert made[-1].shape == shape(8, 3)


# -- Whole pods -----------------------------------------------------------------------------------------------


def whole(rate: float, replicas: int, **changed: Any) -> Observation:
    """Pods of eight GPUs, each of two replicas of size 4; nodes for four of them."""
    fields: dict[str, Any] = {
        "goal": goal(allowed_tensor_parallel_sizes=(4,), **changed.pop("aims", {})),
        "replicas_per_pod": 2,
        "nodes": nodes(4, used=4 * replicas),
    }
    return look(rate, shape(4, replicas), **(fields | changed))


@pytest.mark.parametrize("rate", [1.0, 10.0, 25.0, 40.0, 60.0, 200.0])
@pytest.mark.parametrize("changed", [{}, {"aims": {"spare_replicas": 1}}, {"aims": {"max_replicas": 7}}])
def test_replicas_of_a_divided_pod_come_together(rate: float, changed: dict[str, Any]) -> None:
    decision = decide(whole(rate, 4, **changed))
    assert decision.shape.replicas % 2 == 0
    assert decision.shape.replicas >= 4, "nothing is taken away at the first look"
    assert {one.shape.replicas % 2 for one in decision.candidates} == {0}


def test_gpus_for_half_a_pod_are_no_room() -> None:
    """Four free on each of two nodes would do for two replicas of four, and for no pod of eight."""
    scattered = nodes(1, used=8) + tuple(replace(one, free=4) for one in nodes(2))
    seen = whole(60.0, 2, nodes=scattered)
    assert room(seen, 4).most == 2
    assert room(replace(seen, replicas_per_pod=1), 4).most == 4
    assert decide(seen).limit == "Topology"


def test_they_leave_by_whole_pods() -> None:
    planner, state, current = Planner(timing=TIMING), PlannerState(), shape(4, 8)
    counts = []
    for tick in range(120):
        seen = whole(1.0, current.replicas, now_s=15.0 * tick)
        decision = planner.decide(seen, state)
        state, current = decision.state, decision.shape
        counts.append(current.replicas)
    assert counts[-1] == 2
    assert {count % 2 for count in counts} == {0}


def test_without_a_table_too() -> None:
    for rate in (5.0, 80.0):
        assert Planner(timing={}).decide(whole(rate, 4)).shape.replicas % 2 == 0


# -- Records --------------------------------------------------------------------------------------------------


def test_json_gives_it_back() -> None:
    seen = full(BUSY, shape(8, 1), means=ONE_POD)
    decision = decide(seen)
    assert decision_from_json(decision_to_json(decision)) == decision
    assert observation_from_json(observation_to_json(seen)) == seen
