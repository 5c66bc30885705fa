"""What the planner decides, rule by rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paceline.planner import MISSING, Decision, Figure, Group, Planner, PlannerState, Shape
from tests.unit.planner.looks import TIMING, goal, look, nodes, shape, traffic


def settled(
    planner: Planner, requests_per_s: float, current: Shape, *, looks: int = 60, **changed: Any
) -> Decision:
    """The decision after `looks` looks 15 s apart, each decision carried out at once."""
    state = PlannerState()
    for tick in range(looks):
        decision = planner.decide(look(requests_per_s, current, now_s=15.0 * tick, **changed), state)
        state, current = decision.state, decision.shape
    return decision


def test_more_traffic_gets_more_replicas_at_once() -> None:
    decision = Planner(timing=TIMING).decide(look(40.0, shape(2, 2)))
    assert decision.shape.tensor_parallel_size == 2
    assert decision.shape.replicas > 2
    assert decision.predicted is not None
    assert decision.predicted.attainment >= 0.99


def test_fewer_replicas_only_after_the_stabilization_window() -> None:
    planner = Planner(timing=TIMING)
    state = PlannerState()
    for tick in range(19):
        decision = planner.decide(look(1.0, shape(2, 6), now_s=15.0 * tick), state)
        state = decision.state
        assert decision.shape.replicas == 6
    late = planner.decide(look(1.0, shape(2, 6), now_s=301.0), state)
    assert late.shape.replicas < 6
    assert late.reason == "CheaperShapeSafe"


@pytest.mark.parametrize(
    "rate",
    [
        pytest.param(MISSING, id="missing"),
        pytest.param(Figure(value=3.0, trust="Stale"), id="stale"),
        pytest.param(Figure(value=float("nan")), id="nan"),
        pytest.param(Figure(value=0.1, samples=1, trust="Thin"), id="thin"),
    ],
)
def test_an_unknown_rate_holds_the_shape(rate: Figure) -> None:
    seen = look(3.0, shape(2, 5))
    decision = Planner(timing=TIMING).decide(
        replace(seen, traffic=replace(seen.traffic, requests_per_s=rate))
    )
    assert decision.shape == shape(2, 5)
    assert decision.reason == "MetricsUnknown"
    assert decision.feasible is None


def test_a_floor_above_the_target_gets_a_larger_size() -> None:
    """One request alone at TP1 takes 22 ms a token: no number of replicas gives 15 ms."""
    decision = settled(Planner(timing=TIMING), 4.0, shape(1, 2), goal=goal(tpot_ms=15))
    assert decision.shape.tensor_parallel_size >= 4
    assert decision.feasible


def test_what_fits_is_chosen_when_nothing_is_enough() -> None:
    decision = Planner(timing=TIMING).decide(
        look(60.0, shape(2, 2), nodes=nodes(1, used=4), goal=goal(allowed_tensor_parallel_sizes=(2,)))
    )
    assert decision.shape == shape(2, 4)
    assert decision.feasible is False
    assert decision.limit == "Inventory"


def test_the_budget_is_never_exceeded() -> None:
    decision = Planner(timing=TIMING).decide(look(200.0, shape(2, 2), goal=goal(max_gpus=13)))
    assert decision.shape.gpus <= 13
    assert decision.limit == "GpuBudget"


def test_a_service_without_a_shape_gets_a_first_one() -> None:
    decision = Planner(timing=TIMING).decide(replace(look(0.0, shape(2, 1)), current=None, groups=()))
    assert decision.reason == "FirstShape"
    assert decision.shape.replicas == 1


def test_a_backlog_asks_for_more_than_the_rate_alone() -> None:
    seen = look(10.0, shape(2, 2))
    waiting = Group(tensor_parallel_size=2, ready=2, waiting=Figure(value=2000.0))
    planner = Planner(timing=TIMING)
    assert (
        planner.decide(replace(seen, groups=(waiting,))).shape.replicas > planner.decide(seen).shape.replicas
    )


def test_an_unknown_mix_holds_until_it_was_seen_once() -> None:
    planner = Planner(timing=TIMING)
    blind = look(40.0, shape(2, 2), traffic=traffic(40.0, prompt=None, output=None))
    assert planner.decide(blind).reason == "MetricsUnknown"
    seen = planner.decide(look(40.0, shape(2, 2)))
    assert planner.decide(blind, seen.state).shape.replicas > 2
