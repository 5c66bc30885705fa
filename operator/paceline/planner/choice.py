"""The rules in their order: from ladders to one shape, with the reason in a word and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from paceline.planner.allowance import Allowance
from paceline.planner.calm import Band, band_of, lowered_to
from paceline.planner.capacity import least_replicas
from paceline.planner.decision import Limit, Reason, Switch
from paceline.planner.demand import Demand
from paceline.planner.ladder import Ladder
from paceline.planner.observation import Goal, Observation, Shape
from paceline.planner.settings import PlannerSettings
from paceline.planner.size_change import Change, change_of, dwelt
from paceline.planner.state import PlannerState
from paceline.planner.trust import Assessment

_NEAR_BEST: Final = 0.1
"""When no shape is enough: so much of the error budget is not worth a replica…"""
_NEAR_IN_A_SHIFT: Final = 1.0
"""…and so much while the mix shifts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    shape: Shape
    proven: Shape
    """The smallest shape that this look proves safe, at the chosen size: what a later way down goes by."""
    ladder: Ladder
    reason: Reason
    why: str
    feasible: bool
    limit: Limit
    allowed_miss: float
    switch: Switch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """One look: everything that the rules go by."""

    observation: Observation
    state: PlannerState
    demand: Demand
    ladders: Sequence[Ladder]
    allow: Allowance
    assessment: Assessment
    tried: frozenset[int]
    cached_share: float
    mix_requests: float
    """Requests that the mix is known from."""
    mix_shifting: bool
    """It differs from the one before at this very look: what is known of it may be half of a shift."""
    settings: PlannerSettings

    def choose(self) -> Choice:
        """The current size is on the ladders, or some other is: the caller made sure."""
        mine = self._mine()
        change = change_of(
            self.observation,
            self.state,
            demand=self.demand,
            mine=mine,
            ladders=self.ladders,
            allow=self.allow,
            floor_noise=self._floor_noise,
            mix_shifting=self.mix_shifting,
            may_lower=self.assessment.may_lower,
            tried=self.tried,
            cached_share=self.cached_share,
            settings=self.settings,
        )
        if change is not None:
            return self._moved(change)
        return self._replicas(mine or min(self.ladders, key=lambda one: one.size))

    @property
    def _floor_noise(self) -> float:
        """How far a floor may be off because the longest prompts are few."""
        budget = 1 - self._goal.objective
        return math.sqrt(budget / max(self.mix_requests, 1.0))

    @property
    def _goal(self) -> Goal:
        return self.observation.goal

    @property
    def _current(self) -> Shape:
        assert self.observation.current is not None
        return self.observation.current

    def _mine(self) -> Ladder | None:
        size = self._current.tensor_parallel_size
        return next((one for one in self.ladders if one.size == size), None)

    def _standing(self, one: Ladder) -> int:
        return self._current.replicas if self._current.tensor_parallel_size == one.size else 0

    def _moved(self, change: Change) -> Choice:
        to = change.to
        replicas = to.least(self.allow.new(to)) or to.least(self.allow.now(to))
        feasible = replicas is not None
        shape = self._bounded(to, self._best_effort(to) if replicas is None else replicas)
        surge = Switch(how="Surge", gpus_beside=shape.gpus, hold_s=0.0, missed=0.0)
        switch = to.switches.get(shape.replicas, surge)
        return Choice(
            shape=shape,
            proven=shape,
            ladder=to,
            reason=change.reason,
            why=change.why + _how(switch),
            feasible=feasible,
            limit="None" if feasible else self._limit(to),
            allowed_miss=self.allow.now(to),
            switch=switch,
        )

    def _replicas(self, mine: Ladder) -> Choice:
        band = band_of(self.state, now_s=self.observation.now_s, settings=self.settings)
        allowed = self.allow.now(mine)
        down = self.allow.new(mine, factor=band.allowance_factor)
        needed, proven = mine.least(allowed), mine.least(down)
        best_effort = self._best_effort(mine)
        wanted = self._bounded(mine, best_effort if needed is None else needed)
        safe = self._bounded(mine, proven or max(best_effort, needed or 0))
        shape, reason, why = self._moved_replicas(mine, wanted=wanted, safe=safe, band=band)
        feasible = any(one.least(1 - self._goal.objective) is not None for one in self.ladders)
        limit: Limit = "None"
        if needed is None:
            limit = self._limit(mine)
            reason, why = self._short(mine, feasible=feasible, reason=reason, why=why)
        elif mine.room.most < max(least_replicas(self._goal), self._standing(mine)):
            limit = mine.room.limit
        elif needed < least_replicas(self._goal) == shape.replicas:
            limit = "MinReplicas"
        return Choice(
            shape=shape,
            proven=safe,
            ladder=mine,
            reason=reason,
            why=why,
            feasible=feasible,
            limit=limit,
            allowed_miss=allowed,
        )

    def _moved_replicas(
        self, mine: Ladder, *, wanted: Shape, safe: Shape, band: Band
    ) -> tuple[Shape, Reason, str]:
        current = self._current
        most = self._bounded(mine, mine.most)
        if wanted.tensor_parallel_size != current.tensor_parallel_size or current.replicas > most.replicas:
            # Bounds, budgets or GPUs have shrunk: no calm to keep.
            return (
                replace(wanted, replicas=min(wanted.replicas, most.replicas)),
                "Limited",
                "the bounds changed",
            )
        if wanted.replicas > current.replicas:
            reason, why = self._why_more(mine)
            return wanted, reason, why
        least = least_replicas(self._goal)
        if current.replicas < least:
            if mine.room.most < least:
                why = f"the spec asks for {least} replicas or more, and {mine.room.most} can be had"
                return wanted, "Limited", why
            return wanted, "Limited", "the fewest replicas that the spec allows"
        if safe.replicas >= current.replicas:
            return current, "Steady", "this is enough, and one less would not be"
        if self.observation.changing:
            return current, "ChangeUnderWay", "nothing is taken away while the size changes"
        if self.demand.measured_per_s is None:
            return current, "MetricsUnknown", "the request rate is unknown: nothing is taken away"
        if not self.assessment.may_lower:
            wrong = "; ".join((*self.assessment.problems, *self.assessment.unknown))
            return current, "MetricsUnknown", f"nothing is taken away on doubtful figures: {wrong}"
        lowered = mine.room.whole(lowered_to(self.observation, self.state, proven=safe.replicas, band=band))
        if lowered < current.replicas:
            why = f"{mine.miss_at(lowered):.2%} of requests are expected to miss at the smaller shape{band.note}"
            return replace(current, replicas=lowered), "CheaperShapeSafe", why
        window_s = band.window_s(self._goal.scale_down_stabilization_s)
        why = f"{safe.replicas} would do now, but not over the last {window_s:.0f} s{band.note}"
        return current, "Steady", why

    def _why_more(self, mine: Ladder) -> tuple[Reason, str]:
        here = mine.miss_at(self._current.replicas)
        if self.demand.backlog_per_s > 0.1 * self.demand.planned_per_s:
            waiting = self.demand.backlog_per_s * self.settings.recovery_s
            return (
                "Backlog",
                f"{waiting:.0f} requests wait, to be worked off in {self.settings.recovery_s:.0f} s",
            )
        why = f"{here:.1%} of requests would miss with {self._current.replicas}"
        if self.demand.growing:
            return "ForecastAboveCapacity", f"{why}, {self.demand.look_ahead_s:.0f} s from now"
        return "QueueingAboveTarget", why

    def _short(self, mine: Ladder, *, feasible: bool, reason: Reason, why: str) -> tuple[Reason, str]:
        """This size is not enough, and yet it stays."""
        if feasible and self.demand.measured_per_s is None:
            return "MetricsUnknown", f"{why}; another size would do, once the request rate is known"
        if feasible and self.observation.changing:
            return "ChangeUnderWay", f"{why}; another size would do, after the change under way"
        if feasible and not dwelt(self.observation, self.state):
            return "Dwelling", f"{why}; another size would do, after the dwell time"
        if reason == "MetricsUnknown":
            return reason, why
        best = float(mine.miss[-1])
        return "Limited", f"the best that fits misses in {best:.1%} of all cases"

    def _best_effort(self, one: Ladder) -> int:
        """Where nothing is enough: the fewest replicas that come near the best there is, and carry the load."""
        # Which size a shift takes is known soon, and these replicas would leave with the present one.
        near_best = _NEAR_IN_A_SHIFT if self.mix_shifting else _NEAR_BEST
        near = float(one.miss[-1]) + near_best * (1 - self._goal.objective)
        if one.miss[-1] > 0.5:
            return one.most
        return one.least(near) or one.most

    def _bounded(self, one: Ladder, replicas: int) -> Shape:
        wanted = max(replicas + self._goal.spare_replicas, least_replicas(self._goal))
        return Shape(tensor_parallel_size=one.size, replicas=one.fit(wanted))

    def _limit(self, one: Ladder) -> Limit:
        return "TensorParallelSizes" if one.floor_miss >= 1 - self._goal.objective else one.room.limit


def _how(switch: Switch) -> str:
    if switch.how == "Surge":
        return ""
    held = (
        f"requests are held for about {switch.hold_s:.0f} s" if switch.hold_s else "one pod after the other"
    )
    return f"; in place, as there is no room beside: {held}, {switch.missed:.0f} are expected to miss by it"
