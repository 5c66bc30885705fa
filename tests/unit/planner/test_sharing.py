"""How GPUs are shared: never more than there are, floors first, then priority, holders before newcomers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.planner import Shape
from paceline.planner.sharing import Claim, Pool, shares


def claim(name: str, priority: int, *, floor: int, holds: int, wishes: int, size: int = 1) -> Claim:
    """In replicas of one size."""
    return Claim(
        name=name,
        priority=priority,
        floor=floor * size,
        current=Shape(tensor_parallel_size=size, replicas=holds),
        wish=Shape(tensor_parallel_size=size, replicas=wishes),
    )


def budget(gpus: int, *claims: Claim) -> Pool:
    return Pool(limit="ClusterBudget", gpus=gpus, members=frozenset(one.name for one in claims))


def dealt(gpus: int, *claims: Claim) -> dict[str, int]:
    return {name: share.gpus for name, share in shares(claims, [budget(gpus, *claims)]).items()}


def test_enough_for_all_cuts_nobody() -> None:
    gold = claim("gold", 10, floor=1, holds=1, wishes=3)
    bronze = claim("bronze", 0, floor=1, holds=2, wishes=5)
    found = shares([gold, bronze], [budget(8, gold, bronze)])
    assert {name: (one.gpus, one.bound_by) for name, one in found.items()} == {
        "gold": (3, None),
        "bronze": (5, None),
    }


def test_priority_goes_first_and_nobody_falls_below_its_floor() -> None:
    gold = claim("gold", 10, floor=1, holds=2, wishes=6)
    silver = claim("silver", 0, floor=1, holds=5, wishes=5)
    bronze = claim("bronze", 0, floor=1, holds=1, wishes=2)
    assert dealt(8, gold, silver, bronze) == {"gold": 6, "silver": 1, "bronze": 1}


def test_what_is_left_goes_down_the_ranks() -> None:
    ranks = [claim(name, 3 - n, floor=0, holds=0, wishes=3) for n, name in enumerate(("a", "b", "c"))]
    assert dealt(5, *ranks) == {"a": 3, "b": 2, "c": 0}


def test_between_equals_who_holds_keeps() -> None:
    holder = claim("z", 0, floor=1, holds=6, wishes=8)
    newcomer = claim("a", 0, floor=1, holds=1, wishes=8)
    assert dealt(8, holder, newcomer) == {"z": 6, "a": 2}


def test_between_equals_what_is_free_is_dealt_to_the_one_that_has_least() -> None:
    small = claim("z", 0, floor=1, holds=1, wishes=8)
    large = claim("a", 0, floor=1, holds=4, wishes=8)
    assert dealt(8, small, large) == {"z": 4, "a": 4}


def test_only_whole_replicas_are_dealt() -> None:
    large = claim("a", 1, floor=1, holds=1, wishes=3, size=4)
    small = claim("b", 0, floor=1, holds=1, wishes=9)
    assert dealt(11, large, small) == {"a": 8, "b": 3}


def test_floors_are_kept_although_the_budget_is_smaller() -> None:
    gold = claim("gold", 10, floor=2, holds=2, wishes=6)
    bronze = claim("bronze", 0, floor=3, holds=5, wishes=5)
    assert dealt(4, gold, bronze) == {"gold": 2, "bronze": 3}


def test_a_wish_below_the_floor_is_a_wish() -> None:
    asleep = claim("asleep", 10, floor=1, holds=1, wishes=0)
    bronze = claim("bronze", 0, floor=1, holds=1, wishes=9)
    assert dealt(4, asleep, bronze) == {"asleep": 0, "bronze": 4}


def test_another_size_keeps_what_is_held_and_grows_in_its_own_steps() -> None:
    turning = replace(
        claim("turning", 0, floor=1, holds=2, wishes=0, size=4),
        wish=Shape(tensor_parallel_size=8, replicas=3),
    )
    assert dealt(15, turning) == {"turning": 8}
    assert dealt(17, turning) == {"turning": 16}


def test_the_tightest_pool_binds_and_is_named() -> None:
    here = claim("here", 0, floor=1, holds=1, wishes=9)
    there = claim("there", 0, floor=1, holds=1, wishes=9)
    nodes = Pool(limit="Priority", gpus=3, members=frozenset({"here"}))
    found = shares([here, there], [budget(10, here, there), nodes])
    assert (found["here"].gpus, found["here"].bound_by) == (3, "Priority")
    assert (found["there"].gpus, found["there"].bound_by) == (7, "ClusterBudget")


@pytest.mark.parametrize("gpus", [0, 3, 100])
def test_nobody_wishes_nobody_gets(gpus: int) -> None:
    assert shares([], [budget(gpus)]) == {}


# -- Whatever is claimed ------------------------------------------------------------------------------------------

NAMES = "abcdef"


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[Claim], list[Pool]]:
    claims = [
        claim(
            name,
            draw(st.integers(-2, 2)),
            floor=draw(st.integers(0, 2)),
            holds=draw(st.integers(0, 6)),
            wishes=draw(st.integers(0, 8)),
            size=draw(st.sampled_from((1, 2, 4, 8))),
        )
        for name in NAMES[: draw(st.integers(1, 6))]
    ]
    groups = st.frozensets(st.sampled_from([one.name for one in claims]), min_size=1)
    nodes = [
        Pool(limit="Priority", gpus=draw(st.integers(0, 60)), members=members)
        for members in draw(st.lists(groups, max_size=2))
    ]
    return claims, [budget(draw(st.integers(0, 60)), *claims), *nodes]


def _least(one: Claim) -> int:
    return min(one.floor, one.wish.gpus)


@given(rounds())
def test_no_pool_gives_more_than_it_has_but_for_floors(given_: tuple[list[Claim], list[Pool]]) -> None:
    claims, pools = given_
    found = shares(claims, pools)
    for pool in pools:
        members = [one for one in claims if one.name in pool.members]
        total, least = sum(found[one.name].gpus for one in members), sum(_least(one) for one in members)
        assert total <= max(pool.gpus, least)


@given(rounds())
def test_everybody_gets_its_floor_and_nobody_more_than_it_wishes(
    given_: tuple[list[Claim], list[Pool]],
) -> None:
    claims, pools = given_
    found = shares(claims, pools)
    for one in claims:
        assert _least(one) <= found[one.name].gpus <= one.wish.gpus
        assert (found[one.name].bound_by is None) == (found[one.name].gpus == one.wish.gpus)


@given(rounds())
def test_nothing_that_somebody_wishes_is_left_over(given_: tuple[list[Claim], list[Pool]]) -> None:
    claims, pools = given_
    found = shares(claims, pools)
    left = {
        number: pool.gpus - sum(found[name].gpus for name in pool.members)
        for number, pool in enumerate(pools)
    }
    for one in claims:
        lacking = one.wish.gpus - found[one.name].gpus
        step = min(lacking, one.wish.tensor_parallel_size)
        mine = [left[number] for number, pool in enumerate(pools) if one.name in pool.members]
        assert not lacking or min(mine) < step


@given(rounds(), st.data())
def test_a_higher_priority_never_brings_less(
    given_: tuple[list[Claim], list[Pool]], data: st.DataObject
) -> None:
    claims, pools = given_
    chosen = data.draw(st.sampled_from(claims))
    raised = replace(chosen, priority=chosen.priority + data.draw(st.integers(1, 5)))
    others = [one for one in claims if one is not chosen]
    before, after = shares(claims, pools), shares([*others, raised], pools)
    assert after[chosen.name].gpus >= before[chosen.name].gpus


@given(rounds(), st.randoms())
def test_the_order_of_the_claims_does_not_matter(
    given_: tuple[list[Claim], list[Pool]], order: random.Random
) -> None:
    claims, pools = given_
    shuffled: Sequence[Claim] = order.sample(claims, len(claims))
    assert shares(shuffled, pools) == shares(claims, pools)


@given(rounds(), st.data())
def test_a_wish_of_lower_priority_takes_nothing_from_a_higher(
    given_: tuple[list[Claim], list[Pool]], data: st.DataObject
) -> None:
    """Beyond its floor, which comes before all."""
    claims, pools = given_
    lowest = min(claims, key=lambda one: one.priority)
    more = Shape(tensor_parallel_size=lowest.wish.tensor_parallel_size, replicas=data.draw(st.integers(0, 8)))
    if min(lowest.floor, more.gpus) != _least(lowest):
        return
    before = shares(claims, pools)
    after = shares([replace(one, wish=more) if one is lowest else one for one in claims], pools)
    for one in claims:
        if one.priority > lowest.priority:
            assert after[one.name].gpus == before[one.name].gpus
