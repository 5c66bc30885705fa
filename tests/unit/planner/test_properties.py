"""What must hold whatever is seen: limits, order, finite figures, replays."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from paceline.planner import (
    Decision,
    Figure,
    Grant,
    Group,
    InPlace,
    NodeGpus,
    Observation,
    Planner,
    PlannerState,
    Shape,
    decision_from_json,
    decision_to_json,
    observation_from_json,
    observation_to_json,
    state_from_json,
    state_to_json,
)
from tests.unit.planner.looks import TIMING, goal, look, shape, traffic

PLANNER = Planner(timing=TIMING)
"""One for all: what it keeps must change no answer."""

few = settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
"""A decision on new targets costs a table for each size: few examples, and the first that fails is shown as it is."""

sizes = st.sampled_from((1, 2, 4, 8))
shapes = st.builds(shape, sizes, st.integers(1, 12))
rates = st.floats(0.0, 80.0)
odd = st.sampled_from((math.nan, math.inf, -math.inf, -1.0, 1e30))
trusts = st.sampled_from(("Fresh", "Stale", "Thin", "Missing", "Contradicted"))
figures = st.builds(
    Figure,
    value=st.one_of(st.none(), odd, st.floats(0, 1e4)),
    age_s=st.one_of(st.none(), st.floats(0, 900)),
    samples=st.one_of(st.none(), st.floats(0, 1e5)),
    trust=trusts,
)
groups = st.builds(
    Group,
    tensor_parallel_size=sizes,
    ready=st.integers(0, 6),
    starting_age_s=st.lists(st.floats(0, 900), max_size=3).map(tuple),
    draining=st.integers(0, 2),
    running=figures,
    waiting=figures,
    kv_cache_usage=figures,
    decode_tokens_per_s=figures,
)


grants = st.builds(
    Grant,
    gpus=st.integers(0, 40),
    limit=st.sampled_from(("ClusterBudget", "Priority")),
    why=st.just("others come first"),
)


means = st.builds(
    InPlace,
    pods=st.integers(1, 3),
    gpus_per_pod=st.sampled_from((1, 2, 4, 6, 8)),
    away_s=st.floats(0, 600),
    max_hold_s=st.floats(0, 600),
    most_held=st.integers(0, 500),
)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """Anything at all, with limits that can be met by one replica of the smallest size."""
    seen = draw(st.lists(groups, max_size=2, unique_by=lambda one: one.tensor_parallel_size))
    current = draw(st.one_of(st.none(), shapes))
    allowed = tuple(sorted({1, *draw(st.lists(sizes, max_size=3))}))
    bounds: dict[str, Any] = {
        "allowed_tensor_parallel_sizes": allowed,
        "max_gpus": draw(st.one_of(st.none(), st.integers(8, 40))),
        "min_replicas": draw(st.integers(0, 2)),
        "max_replicas": draw(st.integers(2, 20)),
        "objective": draw(st.sampled_from((0.9, 0.99, 0.999))),
        "ttft_ms": draw(st.sampled_from((100, 500, 2000))),
        "tpot_ms": draw(st.sampled_from((8, 30, 100))),
    }
    return look(
        draw(rates),
        current or shape(1, 1),
        now_s=draw(st.floats(0, 1e5)),
        current=current,
        groups=tuple(seen),
        goal=goal(**bounds),
        nodes=tuple(
            NodeGpus(total=8, free=free) for free in draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
        ),
        traffic=traffic(
            1.0,
            requests_per_s=draw(st.one_of(figures, rates.map(lambda rate: Figure(value=rate, samples=100)))),
            cached_prompt_share=draw(figures),
            held_requests=draw(figures),
        ),
        attainment=draw(figures),
        changing=draw(st.booleans()),
        quota_gpus=draw(st.one_of(st.none(), st.integers(0, 16))),
        grant=draw(st.one_of(st.none(), grants)),
        refused=tuple(draw(st.lists(shapes, max_size=2))),
        no_room_beside=tuple(draw(st.lists(shapes, max_size=2))),
        replicas_per_pod=draw(st.sampled_from((1, 1, 2, 4))),
        in_place=draw(st.one_of(st.none(), means)),
    )


def after(rate: float, current: Shape, *, looks: int = 6, **changed: Any) -> PlannerState:
    state = PlannerState()
    for tick in range(looks):
        state = PLANNER.decide(look(rate, current, now_s=15.0 * tick, **changed), state).state
    return state


@few
@given(observations())
def test_limits_are_never_exceeded(seen: Observation) -> None:
    decision = PLANNER.decide(seen)
    chosen = decision.shape
    unit = seen.unit(chosen.tensor_parallel_size)
    one_pod = chosen.tensor_parallel_size * unit
    assert chosen.replicas >= 1
    assert chosen.replicas <= max(seen.goal.max_replicas, unit)
    if seen.goal.max_gpus is not None:
        assert chosen.gpus <= max(seen.goal.max_gpus, one_pod)
    if seen.grant is not None:
        assert chosen.gpus <= max(seen.grant.gpus, one_pod)
    if decision.in_place:
        assert seen.in_place is not None
        assert chosen.gpus % seen.in_place.gpus_per_pod == 0
        assert chosen.gpus <= seen.in_place.pods * seen.in_place.gpus_per_pod
        return
    held = sum(one.tensor_parallel_size * (one.ready + one.starting) for one in seen.groups)
    free = sum(node.count * node.free for node in seen.nodes)
    assert chosen.gpus <= max(free + held, one_pod)
    if seen.quota_gpus is not None:
        assert chosen.gpus <= max(seen.quota_gpus + held, one_pod)


@few
@given(observations())
def test_replicas_come_and_go_by_whole_pods(seen: Observation) -> None:
    chosen = PLANNER.decide(seen).shape
    standing = seen.current
    if chosen != standing:
        assert chosen.replicas % seen.unit(chosen.tensor_parallel_size) == 0


@few
@given(observations())
def test_no_figure_that_is_not_finite_ever_leaves(seen: Observation) -> None:
    decision = PLANNER.decide(seen)
    text = decision_to_json(decision)
    assert "NaN" not in text
    assert "Infinity" not in text


@few
@given(observations())
def test_json_gives_everything_back(seen: Observation) -> None:
    decision = PLANNER.decide(seen)
    assert decision_from_json(decision_to_json(decision)) == decision
    assert state_from_json(state_to_json(decision.state)) == decision.state
    text = observation_to_json(seen)
    assert json.loads(observation_to_json(observation_from_json(text))) == json.loads(text)


@few
@given(observations(), observations())
def test_a_recorded_decision_can_be_replayed(first: Observation, second: Observation) -> None:
    """From JSON, by a planner that has seen nothing else."""
    state = PLANNER.decide(first).state
    decided = PLANNER.decide(second, state)
    again = Planner(timing=TIMING).decide(
        observation_from_json(observation_to_json(second)), state_from_json(state_to_json(state))
    )
    assert again == decided


@few
@given(st.floats(0.1, 40.0), st.floats(1.0, 2.5), st.floats(0.1, 40.0), st.integers(1, 8))
def test_more_traffic_never_asks_for_less(before: float, factor: float, now: float, replicas: int) -> None:
    current = shape(2, replicas)
    fixed = goal(allowed_tensor_parallel_sizes=(2,))
    state = after(before, current, goal=fixed)
    less = PLANNER.decide(look(now, current, now_s=90.0, goal=fixed), state)
    more = PLANNER.decide(look(now * factor, current, now_s=90.0, goal=fixed), state)
    assert more.shape.gpus >= less.shape.gpus


@few
@given(st.floats(0.1, 30.0), st.integers(500, 3000), st.integers(30, 120), st.floats(1.0, 1.5))
def test_tighter_targets_never_ask_for_less(rate: float, ttft_ms: int, tpot_ms: int, factor: float) -> None:
    current = shape(2, 1)
    decided: list[Decision] = []
    for scale in (factor, 1.0):
        aim = goal(
            ttft_ms=int(ttft_ms * scale), tpot_ms=int(tpot_ms * scale), allowed_tensor_parallel_sizes=(2,)
        )
        decided.append(PLANNER.decide(look(rate, current, now_s=90.0, goal=aim), after(rate, current)))
    loose, tight = decided
    if tight.feasible:
        assert tight.shape.gpus >= loose.shape.gpus


@few
@example(rate=30.16, current=shape(1, 1), unknown=Figure(value=None, age_s=None, samples=None, trust="Fresh"))
@given(st.floats(0.1, 60.0), shapes, figures.filter(lambda one: one.fresh is None))
def test_an_unknown_rate_never_lowers(rate: float, current: Shape, unknown: Figure) -> None:
    state = after(rate, current, looks=3)
    blind = look(rate, current, now_s=60.0, traffic=traffic(rate, requests_per_s=unknown))
    chosen = PLANNER.decide(blind, state).shape
    assert chosen.tensor_parallel_size == current.tensor_parallel_size
    assert chosen.replicas >= min(current.replicas, 64 // current.tensor_parallel_size)


def test_the_state_stays_small() -> None:
    """It is stored with the service: a day of looks must not fill a ConfigMap."""
    state, current = PlannerState(), shape(2, 3)
    for tick in range(400):
        decision = PLANNER.decide(look(6.0 + tick % 7, current, now_s=15.0 * tick), state)
        state, current = decision.state, decision.shape
    assert len(state_to_json(state)) < 16_000
    assert json.loads(state_to_json(state))["version"] == 2


def test_what_is_kept_between_calls_changes_no_answer() -> None:
    seen = look(12.0, shape(2, 2))
    fresh = Planner(timing=TIMING).decide(seen)
    for rate in (1.0, 50.0):
        PLANNER.decide(look(rate, shape(4, 2), traffic=traffic(rate, prompt=None)))
    assert PLANNER.decide(seen) == fresh
    assert PLANNER.decide(replace(seen)) == fresh
