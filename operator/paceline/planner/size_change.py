"""When to change the tensor-parallel size: the slow loop. A change costs a start and a cold prefix cache.

In place it costs requests instead (`in_place`), which the ladders have counted already.

Two reasons are good enough. The floor: one request alone misses its targets at this size, which no number of
replicas helps. Or money: another size has needed clearly fewer GPUs for a while, and what it saves over the
expected stay pays for the change. One change at a time, never two within the dwell time, and none on a remembered request
rate: that may add replicas, and a start of every one is too much for it. None at a look whose mix shifts, but to the largest:
what it shows may be half of the shift. None to a cheaper size on doubtful figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from paceline.planner.allowance import Allowance
from paceline.planner.decision import Reason
from paceline.planner.demand import Demand
from paceline.planner.ladder import Ladder
from paceline.planner.observation import Observation
from paceline.planner.settings import PlannerSettings
from paceline.planner.state import PlannerState, SizeNeed

_MEMORY_S: Final = 1200.0
_DRAIN_S: Final = 120.0
"""The old replicas hold their GPUs this long after the new ones are Ready."""
_REFILL_S: Final = 600.0
"""Until a new replica's prefix cache has what the old one's had."""
_PAYBACK: Final = 1.5
"""Savings over the costs of a change: an estimate of both is worth no more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    to: Ladder
    reason: Reason
    why: str


def with_needs(
    state: PlannerState, ladders: Sequence[Ladder], *, allow: Allowance, now_s: float, passed_s: float
) -> PlannerState:
    """The state with what each size would need now in its average."""
    share = -math.expm1(-passed_s / _MEMORY_S)
    before = {one.tensor_parallel_size: one.gpus for one in state.size_needs}
    needs = []
    for one in ladders:
        needed = one.least(allow.now(one))
        if needed is None:
            continue
        gpus = float(needed * one.size)
        old = before.get(one.size, gpus)
        needs.append(SizeNeed(tensor_parallel_size=one.size, gpus=old + share * (gpus - old)))
    since = state.size_needs_since_s
    return replace(state, size_needs=tuple(needs), size_needs_since_s=now_s if since is None else since)


def change_of(
    observation: Observation,
    state: PlannerState,
    *,
    demand: Demand,
    mine: Ladder | None,
    ladders: Sequence[Ladder],
    allow: Allowance,
    floor_noise: float,
    mix_shifting: bool,
    may_lower: bool,
    tried: frozenset[int],
    cached_share: float,
    settings: PlannerSettings,
) -> Change | None:
    """The change to make now; None: stay."""
    if observation.changing or not dwelt(observation, state):
        return None
    if mine is not None and demand.measured_per_s is None:
        return None
    budget = 1 - observation.goal.objective
    others = [
        one
        for one in ladders
        if one is not mine and one.least(allow.now(one)) is not None and one.floor_miss + floor_noise < budget
    ]
    if mine is not None and budget <= mine.floor_miss <= budget + floor_noise:
        # The few longest prompts that were seen put it above, and may put it below again.
        return None
    if mine is None or mine.least(allow.now(mine)) is None:
        change = _for_want(
            mine,
            ladders,
            others,
            observation=observation,
            allow=allow,
            settings=settings,
        )
        # Half of a shift may ask for half of the size, and the dwell time would keep it.
        larger = change is not None and any(one.size > change.to.size for one in ladders)
        return None if mix_shifting and larger else change
    since = state.size_needs_since_s
    if not may_lower or since is None or observation.now_s - since < settings.size_evidence_s:
        return None
    return _for_money(
        state,
        mine=mine,
        others=others,
        allow=allow,
        tried=tried,
        look_ahead_s=demand.look_ahead_s,
        cached_share=cached_share,
        settings=settings,
    )


def dwelt(observation: Observation, state: PlannerState) -> bool:
    since = state.size_changed_at_s
    return since is None or observation.now_s - since >= observation.goal.min_dwell_s


def _for_want(
    mine: Ladder | None,
    ladders: Sequence[Ladder],
    others: Sequence[Ladder],
    *,
    observation: Observation,
    allow: Allowance,
    settings: PlannerSettings,
) -> Change | None:
    """This size is not enough, however many of it fit."""
    if others:
        best = min(others, key=lambda one: _price(one, allow))
        if mine is None:
            return Change(to=best, reason="FloorAboveTarget", why="the present size is not allowed any more")
        if mine.floor_miss > 1 - observation.goal.objective:
            why = f"one request alone at TP{mine.size} misses in {mine.floor_miss:.1%} of all cases"
            return Change(to=best, reason="FloorAboveTarget", why=why)
        why = f"the {mine.room.most} replicas of TP{mine.size} that fit are not enough"
        return Change(to=best, reason="QueueingAboveTarget", why=why)
    if mine is None or not ladders:
        return None
    best = min(ladders, key=lambda one: (round(one.best[0], 3), -one.best[1]))
    gain = mine.best[0] - best.best[0]
    more = best.best[1] > mine.best[1] * (1 + settings.size_saving_untried) and mine.best[0] > _LOST
    if best is mine or not (gain > settings.size_gain_least or more):
        return None
    return Change(
        to=best, reason="Limited", why=f"no size is enough, and TP{best.size} loses fewest requests"
    )


def _price(one: Ladder, allow: Allowance) -> tuple[bool, int, float, int]:
    """Whether it will do for now alone, GPUs, then the misses of the change."""
    replicas, for_now = one.least(allow.lasting(one)), False
    if replicas is None:
        replicas, for_now = one.least(allow.now(one)) or one.most, True
    switch = one.switches.get(replicas)
    return for_now, replicas * one.size, switch.missed if switch is not None else 0.0, one.size


_LOST: Final = 0.5
"""Misses above which attainments say nothing any more, and what the sizes carry decides."""


def _for_money(
    state: PlannerState,
    *,
    mine: Ladder,
    others: Sequence[Ladder],
    allow: Allowance,
    tried: frozenset[int],
    look_ahead_s: float,
    cached_share: float,
    settings: PlannerSettings,
) -> Change | None:
    needs = {one.tensor_parallel_size: one.gpus for one in state.size_needs}
    here = needs.get(mine.size)
    now_here = (mine.least(allow.now(mine)) or 0) * mine.size
    if here is None or here <= 0:
        return None
    best: Change | None = None
    most_saved = 0.0
    for one in others:
        there = needs.get(one.size)
        replicas = one.least(allow.new(one)) or one.most
        now_there = replicas * one.size
        least = settings.size_saving_least if one.size in tried else settings.size_saving_untried
        if there is None or now_there > now_here * (1 - least / 2):
            # Whole replicas may not have what the average has.
            continue
        saved = here - there
        # In place nothing runs beside the old pods, and the misses are counted on the ladder.
        beside_s = 0.0 if replicas in one.switches else look_ahead_s + _DRAIN_S
        cost_s = beside_s + cached_share * _REFILL_S
        if saved < least * here or saved * settings.size_stay_s < _PAYBACK * there * cost_s:
            continue
        if saved > most_saved:
            most_saved = saved
            why = f"TP{one.size} has needed {there:.1f} GPUs against {here:.1f} at TP{mine.size}"
            if cost_s:
                why += f": it pays back its start after {there * cost_s / saved / 60:.0f} min"
            best = Change(to=one, reason="CheaperTensorParallelSize", why=why)
    return best
