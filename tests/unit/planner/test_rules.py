"""Each rule of the planner: what it must do, and what it must leave alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paceline.planner import (
    Decision,
    Figure,
    Grant,
    Group,
    Lengths,
    NodeGpus,
    Planner,
    PlannerSettings,
    PlannerState,
    Shape,
    SharedLimit,
)
from paceline.planner.experience import experienced
from paceline.planner.pacing import paced
from paceline.planner.state import Pace
from tests.unit.planner.looks import CHAT_PROMPT, TIMING, goal, look, nodes, shape, traffic


def watched(
    planner: Planner, rate: float, current: Shape, *, looks: int, from_s: float = 0.0, **changed: Any
) -> tuple[Decision, Shape, list[str]]:
    """`looks` looks 15 s apart, each decision carried out at once; the reasons in their order."""
    state: PlannerState = changed.pop("state", PlannerState())
    reasons: list[str] = []
    for tick in range(looks):
        decision = planner.decide(look(rate, current, now_s=from_s + 15.0 * tick, **changed), state)
        if not reasons or reasons[-1] != decision.reason:
            reasons.append(decision.reason)
        state, current = decision.state, decision.shape
    return decision, current, reasons


# -- The size -------------------------------------------------------------------------------------------------


def test_a_size_that_costs_more_is_left_when_the_saving_was_seen_for_long() -> None:
    _, current, reasons = watched(Planner(timing=TIMING), 4.0, shape(8, 1), looks=50)
    assert "CheaperTensorParallelSize" in reasons
    assert current.gpus < 8
    early, _, _ = watched(Planner(timing=TIMING), 4.0, shape(8, 1), looks=20)
    assert early.shape == shape(8, 1)


def test_two_changes_of_size_are_never_nearer_than_the_dwell_time() -> None:
    planner, tight, loose = Planner(timing=TIMING), goal(tpot_ms=15), goal(tpot_ms=100)
    first, current, _ = watched(planner, 4.0, shape(1, 2), looks=2, goal=tight)
    assert current.tensor_parallel_size >= 4
    assert first.state.size_changed_at_s is not None
    later, held, _ = watched(planner, 4.0, current, looks=100, from_s=60.0, state=first.state, goal=loose)
    assert held.tensor_parallel_size == current.tensor_parallel_size
    _, moved, _ = watched(planner, 4.0, held, looks=60, from_s=3700.0, state=later.state, goal=loose)
    assert moved.tensor_parallel_size < current.tensor_parallel_size


def with_long_prompts(share: float) -> Lengths:
    """Chat, with so many prompts of 15,000 tokens among it."""
    chat = float(sum(CHAT_PROMPT.counts))
    long = chat * share / (1 - share)
    *counts, last = CHAT_PROMPT.counts
    return replace(
        CHAT_PROMPT,
        counts=(*counts, last + long),
        mean_tokens=(chat * CHAT_PROMPT.mean_tokens + long * 15_000) / (chat + long),
    )


SLOW = goal(ttft_ms=2000, tpot_ms=50)


def test_half_of_a_shift_does_not_choose_the_size() -> None:
    """The window shows a quarter of the shift, then half of it, and so on; what it shows first would ask for TP2."""
    planner = Planner(timing=TIMING)
    quarter = traffic(8.0, prompt=with_long_prompts(0.025))
    assert planner.decide(look(8.0, shape(1, 3), goal=SLOW, traffic=quarter)).shape.tensor_parallel_size == 2
    decision, current, _ = watched(planner, 8.0, shape(1, 12), looks=8, goal=SLOW)
    assert current.tensor_parallel_size == 1
    sizes = []
    for tick, share in enumerate((0.025, 0.05, 0.075, 0.1, 0.1, 0.1)):
        shifted = traffic(8.0, prompt=with_long_prompts(share))
        seen = look(8.0, current, now_s=120 + 15.0 * tick, goal=SLOW, traffic=shifted)
        decision = planner.decide(seen, decision.state)
        current = decision.shape
        sizes.append(current.tensor_parallel_size)
    assert sizes == [1, 1, 1, 4, 4, 4], "the last quarter is within the noise of the others"


def test_fewer_replicas_of_a_size_that_is_not_enough_come_while_its_change_is_near() -> None:
    planner, long = Planner(timing=TIMING), traffic(8.0, prompt=with_long_prompts(0.1))
    before, current, _ = watched(planner, 8.0, shape(1, 4), looks=8, goal=SLOW)
    shifting = planner.decide(look(8.0, current, now_s=120.0, goal=SLOW, traffic=long), before.state)
    dwelling = planner.decide(
        look(8.0, current, now_s=120.0, goal=SLOW, traffic=long), PlannerState(size_changed_at_s=0.0)
    )
    assert shifting.shape.tensor_parallel_size == dwelling.shape.tensor_parallel_size == 1
    assert current.replicas <= shifting.shape.replicas < dwelling.shape.replicas


def test_the_largest_size_need_not_wait_for_the_rest_of_a_shift() -> None:
    planner, two = Planner(timing=TIMING), replace(SLOW, allowed_tensor_parallel_sizes=(1, 4))
    before, current, _ = watched(planner, 8.0, shape(1, 12), looks=8, goal=two)
    shifted = traffic(8.0, prompt=with_long_prompts(0.05))
    decision = planner.decide(look(8.0, current, now_s=120.0, goal=two, traffic=shifted), before.state)
    assert decision.shape.tensor_parallel_size == 4


@pytest.mark.parametrize("pace", [1.0, 8.0])
def test_a_budget_that_was_saved_up_does_not_choose_the_size(pace: float) -> None:
    """With eight budgets to spend TP2 would be cheaper for the few minutes that they last."""
    state = PlannerState(pace=Pace(factor=pace, requests_per_window=1200.0, counted_at_s=0.0))
    seen = look(20.0, shape(1, 2), goal=SLOW, traffic=traffic(20.0, prompt=with_long_prompts(0.05)))
    assert Planner(timing=TIMING).decide(seen, state).shape.tensor_parallel_size == 4


def test_a_floor_above_the_target_waits_for_the_dwell_time_and_says_so() -> None:
    state = PlannerState(size_changed_at_s=0.0)
    decision = Planner(timing=TIMING).decide(
        look(4.0, shape(1, 2), now_s=600.0, goal=goal(tpot_ms=15)), state
    )
    assert decision.shape.tensor_parallel_size == 1
    assert decision.reason == "Dwelling"
    assert any("50 min" in said for said in decision.would_change)


def test_while_the_size_changes_it_is_held_and_replicas_may_only_grow() -> None:
    planner = Planner(timing=TIMING)
    quiet, _, _ = watched(planner, 0.5, shape(4, 4), looks=100, changing=True)
    assert quiet.shape == shape(4, 4)
    assert quiet.reason == "ChangeUnderWay"
    busy = planner.decide(look(90.0, shape(4, 4), changing=True))
    assert busy.shape.tensor_parallel_size == 4
    assert busy.shape.replicas > 4


def test_targets_that_no_allowed_size_reaches_name_the_one_that_would() -> None:
    seen = look(4.0, shape(1, 2), goal=goal(tpot_ms=12, allowed_tensor_parallel_sizes=(1, 2)))
    decision = Planner(timing=TIMING).decide(seen)
    assert decision.feasible is False
    assert decision.limit == "TensorParallelSizes"
    assert any(said.startswith("TP4") for said in decision.would_change)


def test_few_requests_prove_no_floor() -> None:
    """Ten requests, one of them long: the size is not changed for it."""
    odd = traffic(
        0.05,
        prompt=replace(look(1.0, shape(1, 1)).traffic.prompt, counts=(0,) * 10 + (9.0, 0, 0, 1.0)),  # type: ignore[type-var]
        output=None,
    )
    seen = look(0.05, shape(1, 1))
    state = Planner(timing=TIMING).decide(seen).state
    decision = Planner(timing=TIMING).decide(
        look(0.05, shape(1, 1), now_s=120.0, traffic=odd), replace(state, size_changed_at_s=None)
    )
    assert decision.shape.tensor_parallel_size == 1


# -- Replicas -------------------------------------------------------------------------------------------------


def test_replicas_that_start_are_not_asked_for_again() -> None:
    planner = Planner(timing=TIMING)
    first = planner.decide(look(30.0, shape(2, 2)))
    starting = Group(tensor_parallel_size=2, ready=2, starting_age_s=(15.0,) * (first.shape.replicas - 2))
    again = planner.decide(look(30.0, first.shape, now_s=15.0, groups=(starting,)), first.state)
    assert again.shape == first.shape


def test_reversals_make_the_way_down_longer_and_are_told() -> None:
    planner = Planner(timing=TIMING)
    calm, current, _ = watched(planner, 1.0, shape(2, 6), looks=22)
    assert current.replicas < 6
    flapping = PlannerState(reversed_at_s=(-100.0, -50.0))
    held, current, _ = watched(planner, 1.0, shape(2, 6), looks=22, state=flapping)
    assert current.replicas == 6
    assert "reversals" in held.message
    assert calm.state.reversed_at_s == ()


def test_replicas_that_come_back_soon_are_counted_as_a_reversal() -> None:
    planner = Planner(timing=TIMING)
    down, current, _ = watched(planner, 1.0, shape(2, 6), looks=22)
    up = planner.decide(look(60.0, current, now_s=345.0), down.state)
    assert up.shape.replicas > current.replicas
    assert len(up.state.reversed_at_s) == 1


def test_spare_replicas_come_on_top() -> None:
    planner = Planner(timing=TIMING)
    plain = planner.decide(look(30.0, shape(2, 1)))
    spared = planner.decide(look(30.0, shape(2, 1), goal=goal(spare_replicas=2)))
    assert spared.shape.replicas == plain.shape.replicas + 2


# -- Limits ---------------------------------------------------------------------------------------------------


def test_gpus_on_two_nodes_are_no_room_for_one_replica() -> None:
    split = (NodeGpus(total=8, free=4), NodeGpus(total=8, free=4))
    seen = look(4.0, shape(1, 1), nodes=split, goal=goal(tpot_ms=9, allowed_tensor_parallel_sizes=(1, 8)))
    decision = Planner(timing=TIMING).decide(seen)
    assert decision.shape.tensor_parallel_size == 1
    assert decision.feasible is False


def test_nodes_that_are_alike_may_be_written_once() -> None:
    one_by_one = look(
        40.0, shape(2, 1), nodes=(NodeGpus(total=8, free=4),) * 3 + (NodeGpus(total=8, free=1),)
    )
    counted = replace(
        one_by_one, nodes=(NodeGpus(total=8, free=4, count=3), NodeGpus(total=8, free=1, count=1))
    )
    planner = Planner(timing=TIMING)
    assert planner.decide(counted) == planner.decide(one_by_one)


def test_a_refused_shape_is_not_tried_again() -> None:
    decision = Planner(timing=TIMING).decide(look(60.0, shape(2, 3), refused=(shape(2, 5),)))
    assert decision.shape.replicas <= 4 or decision.shape.tensor_parallel_size != 2


def test_fewer_than_the_spec_asks_for_is_told_with_what_can_be_had() -> None:
    asked = goal(allowed_tensor_parallel_sizes=(2,), min_replicas=2)
    decision = Planner(timing=TIMING).decide(look(0.5, shape(2, 1), refused=(shape(2, 2),), goal=asked))
    assert decision.shape == shape(2, 1)
    assert decision.reason == "Limited"
    assert "2 replicas or more, and 1 can be had" in decision.message
    assert decision.limit == "Refused"


def test_under_a_cap_the_loss_is_told() -> None:
    seen = look(60.0, shape(2, 2), nodes=nodes(1, used=4), goal=goal(allowed_tensor_parallel_sizes=(2,)))
    decision = Planner(timing=TIMING).decide(seen)
    assert decision.predicted is not None
    assert decision.predicted.attainment < 0.99
    assert "misses in" in decision.message


def test_a_quota_leaves_what_it_leaves() -> None:
    asked = goal(allowed_tensor_parallel_sizes=(2,))
    free = Planner(timing=TIMING).decide(look(60.0, shape(2, 3), goal=asked))
    assert free.shape.replicas > 4
    bound = Planner(timing=TIMING).decide(look(60.0, shape(2, 3), goal=asked, quota_gpus=3))
    assert (bound.shape, bound.limit) == (shape(2, 4), "Quota")
    assert any("more room (Quota)" in one for one in bound.would_change)


def test_a_quota_that_shrank_takes_nothing_that_runs() -> None:
    asked = goal(allowed_tensor_parallel_sizes=(2,))
    decision = Planner(timing=TIMING).decide(look(60.0, shape(2, 3), goal=asked, quota_gpus=0))
    assert decision.shape == shape(2, 3)


@pytest.mark.parametrize("limit", ["ClusterBudget", "Priority"])
def test_a_grant_leaves_what_it_leaves_and_says_why(limit: SharedLimit) -> None:
    asked = goal(allowed_tensor_parallel_sizes=(2,))
    grant = Grant(gpus=8, limit=limit, why="others come first")
    bound = Planner(timing=TIMING).decide(look(60.0, shape(2, 3), goal=asked, grant=grant))
    assert (bound.shape, bound.limit) == (shape(2, 4), limit)
    assert bound.message.endswith("; others come first")
    assert any(f"more room ({limit})" in one for one in bound.would_change)


def test_what_is_held_beyond_a_grant_is_given_back_at_once() -> None:
    """Although the load would need it, and no stabilization window has passed."""
    asked = goal(allowed_tensor_parallel_sizes=(2,))
    grant = Grant(gpus=4, limit="ClusterBudget", why="others come first")
    decision = Planner(timing=TIMING).decide(look(60.0, shape(2, 6), goal=asked, grant=grant))
    assert (decision.shape, decision.reason, decision.limit) == (shape(2, 2), "Limited", "ClusterBudget")


def test_a_grant_that_would_do_is_the_limit_all_the_same_of_what_is_given_back() -> None:
    asked = goal(allowed_tensor_parallel_sizes=(2,))
    grant = Grant(gpus=8, limit="Priority", why="others come first")
    decision = Planner(timing=TIMING).decide(look(0.5, shape(2, 6), goal=asked, grant=grant))
    assert decision.shape.replicas <= 4
    assert (decision.limit, decision.feasible) == ("Priority", True)
    assert "others come first" in decision.message


# -- Trust ----------------------------------------------------------------------------------------------------


def test_contradictory_figures_are_named_and_lower_nothing() -> None:
    group = Group(
        tensor_parallel_size=2,
        ready=6,
        running=Figure(value=5.0),
        waiting=Figure(value=0.0),
        decode_tokens_per_s=Figure(value=5.0),
    )
    decision, current, _ = watched(Planner(timing=TIMING), 8.0, shape(2, 6), looks=60, groups=(group,))
    assert current == shape(2, 6)
    assert "tokens/s" in decision.problems[0]


def test_a_stale_queue_lowers_nothing() -> None:
    group = Group(tensor_parallel_size=2, ready=6, waiting=Figure(value=0.0, trust="Stale"))
    decision, current, _ = watched(Planner(timing=TIMING), 1.0, shape(2, 6), looks=60, groups=(group,))
    assert current == shape(2, 6)
    assert decision.reason == "MetricsUnknown"


def test_doubtful_figures_change_no_size_for_money() -> None:
    """However much of the budget was saved up: TP1 would do with a twelfth of the GPUs."""
    rich = PlannerState(pace=Pace(factor=8.0, requests_per_window=60.0, counted_at_s=0.0))
    group = Group(tensor_parallel_size=2, ready=6, waiting=Figure(value=0.0, trust="Stale"))
    _, current, _ = watched(Planner(timing=TIMING), 1.0, shape(2, 6), looks=60, groups=(group,), state=rich)
    assert current == shape(2, 6)
    _, current, _ = watched(Planner(timing=TIMING), 1.0, shape(2, 6), looks=60, state=rich)
    assert current.gpus == 1


def test_a_ramp_goes_on_while_the_metrics_are_gone() -> None:
    planner, state, current = Planner(timing=TIMING), PlannerState(), shape(2, 2)
    for tick in range(40):
        decision = planner.decide(look(5.0 + 0.3 * tick, current, now_s=15.0 * tick), state)
        state, current = decision.state, decision.shape
    blind = traffic(1.0, requests_per_s=Figure(value=None, trust="Missing"))
    for tick in range(40, 52):
        decision = planner.decide(look(1.0, current, now_s=15.0 * tick, traffic=blind), state)
        assert decision.shape.replicas >= current.replicas
        state = decision.state
    assert decision.demand_per_s is not None
    assert decision.demand_per_s > 17.0


# -- Learning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attainment", "higher"), [(1.0, True), (0.95, False)])
def test_the_allowance_follows_the_budget(attainment: float, higher: bool) -> None:
    state = PlannerState(pace=Pace(factor=1.0, requests_per_window=600.0, counted_at_s=0.0))
    for minute in range(1, 60):
        seen = look(
            10.0,
            shape(2, 2),
            now_s=60.0 * minute,
            attainment=Figure(value=attainment, samples=600),
        )
        state = paced(seen, state, settings=PlannerSettings())
    assert state.pace is not None
    assert (state.pace.factor > 2) if higher else (state.pace.factor < 0.5)
    assert PlannerSettings().pace_least <= state.pace.factor <= PlannerSettings().pace_most


def test_a_window_is_counted_once() -> None:
    state = PlannerState(pace=Pace(factor=1.0, requests_per_window=600.0, counted_at_s=0.0))
    for tick in range(1, 4):
        seen = look(10.0, shape(2, 2), now_s=15.0 * tick, attainment=Figure(value=1.0, samples=600))
        state = paced(seen, state, settings=PlannerSettings())
    assert state.pace is not None
    assert state.pace.factor == 1.0


def test_misses_that_the_model_does_not_see_lower_the_capacity_within_bounds() -> None:
    state = PlannerState()
    for _ in range(5):
        state = experienced(state, attainment=0.93, predicted=0.99, requests=600, passed_s=60)
    assert state.capacity_factor < 1
    for _ in range(500):
        state = experienced(state, attainment=0.5, predicted=0.99, requests=600, passed_s=60)
    assert state.capacity_factor == pytest.approx(0.8)


def test_noise_around_the_prediction_teaches_nothing() -> None:
    state = PlannerState()
    for attainment in (0.992, 0.988, 0.991, 0.989) * 5:
        state = experienced(state, attainment=attainment, predicted=0.99, requests=600, passed_s=60)
    assert state.capacity_factor == 1.0


# -- Without a table ------------------------------------------------------------------------------------------


def test_without_a_table_the_size_is_held_and_a_missed_objective_adds() -> None:
    missed = Figure(value=0.9, samples=600)
    decision, current, _ = watched(Planner(timing={}), 8.0, shape(4, 2), looks=12, attainment=missed)
    assert current.tensor_parallel_size == 4
    assert current.replicas > 2
    assert decision.candidates == ()


def test_without_a_table_only_what_was_proven_is_taken_away() -> None:
    good = Figure(value=0.999, samples=600)
    planner = Planner(timing={})
    busy, current, _ = watched(planner, 8.0, shape(4, 4), looks=40, attainment=good)
    assert current == shape(4, 4)
    _, current, _ = watched(planner, 2.0, current, looks=60, from_s=600.0, state=busy.state, attainment=good)
    assert 1 <= current.replicas < 4


# -- Words ----------------------------------------------------------------------------------------------------


def test_every_candidate_but_the_chosen_one_says_why_it_lost() -> None:
    decision = Planner(timing=TIMING).decide(look(20.0, shape(2, 2)))
    chosen = [one for one in decision.candidates if one.rejected is None]
    assert [one.shape for one in chosen] == [decision.shape]
    assert decision.candidates[0].shape == decision.shape
    assert decision.runner_up == decision.candidates[1].shape
    assert len(decision.candidates) <= 64
    assert any("more than" in said for said in decision.would_change)


def test_fewer_candidates_change_the_list_and_not_the_answer() -> None:
    terse = Planner(timing=TIMING, settings=PlannerSettings(max_candidates=1))
    for rate in (2.0, 20.0, 90.0):
        seen = look(rate, shape(2, 2))
        full, short = Planner(timing=TIMING).decide(seen), terse.decide(seen)
        assert short.candidates == full.candidates[:1]
        assert (short.shape, short.message, short.predicted) == (full.shape, full.message, full.predicted)
        assert short.state == full.state
