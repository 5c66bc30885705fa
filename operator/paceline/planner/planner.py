"""Observation in, decision out: the order in which the parts are asked.

Called by the controller and the simulator, once a tick and service. The state is an argument; what is kept in
the object between two calls is a cache of tables, which changes no answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from paceline.planner import calibration, without_table
from paceline.planner.allowance import Allowance
from paceline.planner.calm import band_of, lowered_to, recorded
from paceline.planner.capacity import least_replicas, room
from paceline.planner.choice import Chooser
from paceline.planner.decision import Decision, Limit, Reason
from paceline.planner.demand import Demand, demand_of
from paceline.planner.experience import experienced
from paceline.planner.explain import candidates_of, runner_up_of, would_change
from paceline.planner.in_place import Charged, charged
from paceline.planner.ladder import Ladder, ladders_of
from paceline.planner.observation import Group, Lengths, Observation, Shape
from paceline.planner.pacing import paced
from paceline.planner.settings import PlannerSettings
from paceline.planner.size_change import with_needs
from paceline.planner.state import Blend, Calibration, PlannerState
from paceline.planner.surface import Surface
from paceline.planner.surface_cache import MixSurfaces, SurfaceCache
from paceline.planner.trust import Assessment, assess
from paceline.planner.workload import remembered
from paceline_core.timing import StepTiming

_MORE: Final[Reason] = "QueueingAboveTarget"
_SAME: Final[Reason] = "Steady"
_STEADY_CHANGE: Final = 0.2
"""Of the rate over one look-ahead: above, misses are those of a ramp and say nothing about the model."""
_BACKLOG_SHARE: Final = 0.05
_SHIFT_S: Final = 600.0
"""After a shift of the mix and in a backlog, misses are those of the transition."""
_ASSUMED: Final = Blend(
    prompt=Lengths(upper_tokens=(64, 256, 1024, 2048, 4096), counts=(1, 3, 8, 5, 3), mean_tokens=1000.0),
    output=Lengths(upper_tokens=(16, 64, 128, 256, 512), counts=(1, 3, 5, 7, 4), mean_tokens=200.0),
    cached_prompt_share=0.0,
)
"""Chat, until the first requests tell."""


class Planner:
    """The planner of one service.

    `timing` has one entry a tensor-parallel size that the model can run at; a size without an entry is never
    chosen. An empty mapping is allowed: then the size is held, and replicas go by experience alone.
    """

    def __init__(self, *, timing: Mapping[int, StepTiming], settings: PlannerSettings | None = None) -> None:
        self._timing = dict(timing)
        self._settings = settings or PlannerSettings()
        self._surfaces = SurfaceCache(self._timing)
        self._scaled: tuple[tuple[Calibration, ...], dict[int, float]] | None = None

    def decide(self, observation: Observation, state: PlannerState | None = None) -> Decision:
        before = state or PlannerState()
        memory = remembered(before.mix, observation)
        demand, forecast = demand_of(observation, before.forecast, settings=self._settings)
        state = replace(
            before, mix=memory, forecast=forecast, settled_since_s=_settled_since_s(observation, before)
        )
        if observation.current is None:
            return self._first(observation, state, demand)
        surfaces = self._surfaces.of(memory.used, goal=observation.goal) if memory is not None else None
        if demand is None or memory is None or surfaces is None:
            return self._held(observation, state, "rate" if demand is None else "mix of lengths")
        steady = abs(math.log(max(demand.expected_per_s, 1e-9) / max(demand.measured_per_s or 0, 1e-9)))
        assessment = assess(
            observation,
            mix=surfaces.mix,
            settled=_has_settled(observation, state) and steady < _STEADY_CHANGE,
        )
        if observation.current.tensor_parallel_size not in self._timing:
            return self._by_experience(observation, state, demand, assessment)
        # What this look teaches counts from the next one on: so more traffic never asks for less.
        priced = charged(
            self._ladders(observation, before, surfaces, demand),
            observation=observation,
            demand=demand,
            settings=self._settings,
        )
        if not priced.ladders:
            return self._nothing_fits(observation, state)
        state = paced(observation, state, settings=self._settings)
        calm = (
            steady < _STEADY_CHANGE
            and demand.backlog_per_s < _BACKLOG_SHARE * demand.planned_per_s
            and observation.now_s - memory.shifted_at_s >= _SHIFT_S
        )
        if calm:
            state = self._learned(observation, state, demand, surfaces)
        shifting = before.mix is not None and memory.shifted_at_s == observation.now_s
        return self._chosen(
            observation, state, demand, memory.used, surfaces, priced, assessment, mix_shifting=shifting
        )

    def _chosen(
        self,
        observation: Observation,
        state: PlannerState,
        demand: Demand,
        blend: Blend,
        surfaces: MixSurfaces,
        priced: Charged,
        assessment: Assessment,
        *,
        mix_shifting: bool,
    ) -> Decision:
        ladders = priced.ladders
        allow = Allowance.of(state, objective=observation.goal.objective, settings=self._settings)
        passed_s = _passed_s(observation, state)
        state = with_needs(state, ladders, allow=allow, now_s=observation.now_s, passed_s=passed_s)
        choice = Chooser(
            observation=observation,
            state=state,
            demand=demand,
            ladders=ladders,
            allow=allow,
            assessment=assessment,
            tried=frozenset(one.tensor_parallel_size for one in state.calibrations if one.measurements),
            cached_share=blend.cached_prompt_share,
            mix_requests=sum(blend.prompt.counts),
            mix_shifting=mix_shifting,
            settings=self._settings,
        ).choose()
        candidates = candidates_of(
            choice, ladders, observation=observation, state=state, settings=self._settings
        )
        denied = {} if choice.feasible else self._denied(observation, state, surfaces)
        current = observation.current
        moved = current is not None and choice.shape.tensor_parallel_size != current.tensor_parallel_size
        after = recorded(
            observation,
            state,
            proven=choice.proven,
            chosen=choice.shape,
            settings=self._settings,
        )
        after = replace(
            after,
            last_safe=choice.shape if demand.measured_per_s is not None else state.last_safe,
            looked_at_s=observation.now_s,
            size_changed_at_s=observation.now_s if moved else state.size_changed_at_s,
            size_needs_since_s=None if moved else after.size_needs_since_s,
        )
        shape = choice.shape
        predicted = next((one.prediction for one in candidates if one.shape == shape), None)
        as_before = ", as at this time of day before" if demand.seasonal else ""
        if demand.jump_per_s is not None and demand.jump_per_s > demand.expected_per_s:
            as_before += f", and a jump to {demand.jump_per_s:.3g} as there were before"
        return Decision(
            shape=shape,
            reason=choice.reason,
            message=f"{_words(shape)} for {demand.planned_per_s:.3g} requests/s{as_before}: {choice.why}"
            + _granted(observation, choice.limit),
            feasible=choice.feasible,
            limit=choice.limit,
            predicted=predicted,
            candidates=candidates,
            would_change=would_change(
                choice,
                observation=observation,
                state=after,
                demand=demand,
                denied=denied,
                ruled_out=priced.ruled_out,
            ),
            confidence=assessment.factor
            * calibration.certainty(state.calibrations, shape.tensor_parallel_size),
            state=after,
            runner_up=runner_up_of(candidates, objective=observation.goal.objective),
            demand_per_s=demand.planned_per_s,
            problems=assessment.problems,
            switch=choice.switch,
        )

    # what is known of the sizes

    def _ladders(
        self, observation: Observation, state: PlannerState, surfaces: MixSurfaces, demand: Demand
    ) -> tuple[Ladder, ...]:
        goal = observation.goal
        timed = sorted(set(goal.allowed_tensor_parallel_sizes) & self._timing.keys())
        rooms = {size: room(observation, size) for size in timed}
        return ladders_of(
            {
                size: self._surface(observation, state, surfaces, size)
                for size, there in rooms.items()
                if not there.is_empty
            },
            rooms=rooms,
            least=least_replicas(goal),
            current=observation.current,
            demand=demand,
            capacity_factor=state.capacity_factor,
        )

    def _denied(
        self, observation: Observation, state: PlannerState, surfaces: MixSurfaces
    ) -> dict[int, Surface]:
        sizes = set(self._timing) - set(observation.goal.allowed_tensor_parallel_sizes)
        return {size: self._surface(observation, state, surfaces, size) for size in sorted(sizes)}

    def _surface(
        self, observation: Observation, state: PlannerState, surfaces: MixSurfaces, size: int
    ) -> Surface:
        held = next((one for one in observation.groups if one.tensor_parallel_size == size), None)
        return surfaces.surface(
            size,
            scale=self._scales(state.calibrations)[size],
            kv_cache_tokens=held.kv_cache_tokens if held is not None else None,
        )

    def _scales(self, known: tuple[Calibration, ...]) -> dict[int, float]:
        if self._scaled is None or self._scaled[0] != known:
            self._scaled = known, calibration.scales(known, self._timing)
        return self._scaled[1]

    def _learned(
        self,
        observation: Observation,
        state: PlannerState,
        demand: Demand,
        surfaces: MixSurfaces,
    ) -> PlannerState:
        """Once a window in which nothing changed: κ and the capacity factor."""
        group = _only(observation)
        rate, window_s = demand.measured_per_s, observation.traffic.window_s
        last = state.learned_at_s
        if group is None or rate is None or not _has_settled(observation, state):
            return state
        if last is not None and observation.now_s - last < window_s:
            return state
        surface = self._surface(observation, state, surfaces, group.tensor_parallel_size)
        passed_s = window_s if last is None else observation.now_s - last
        per_replica = rate / group.ready
        learned = replace(
            state,
            learned_at_s=observation.now_s,
            calibrations=calibration.updated(
                state.calibrations,
                group=group,
                model=surface.model,
                rate_per_replica=per_replica,
                passed_s=passed_s,
            ),
        )
        good, seen = observation.attainment.fresh, observation.attainment.samples
        if good is not None and 0 <= good <= 1 and per_replica < surface.most_rate:
            miss = surface.miss_one(per_replica / state.capacity_factor, replicas=group.ready)
            requests = rate * window_s if seen is None else seen
            learned = experienced(
                learned, attainment=good, predicted=1 - miss, requests=requests, passed_s=passed_s
            )
        return learned

    # answers without a choice among candidates

    def _first(self, observation: Observation, state: PlannerState, demand: Demand | None) -> Decision:
        """Nothing runs: the cheapest size that the targets allow, for what is known of the traffic."""
        goal = observation.goal
        sizes = sorted(set(goal.allowed_tensor_parallel_sizes))
        fitting = [size for size in sizes if room(observation, size).most >= 1]
        surfaces = self._surfaces.of(state.mix.used if state.mix is not None else _ASSUMED, goal=goal)
        assert surfaces is not None
        timed = {
            size: self._surface(observation, state, surfaces, size)
            for size in fitting
            if size in self._timing
        }
        budget = 1 - goal.objective
        floors = {size: 1 - one.floor_attainment for size, one in timed.items()}
        enough = [size for size in timed if floors[size] < budget]
        size = (
            enough[0]
            if enough
            else min(floors, key=lambda one: floors[one])
            if floors
            else (fitting or sizes)[0]
        )
        replicas = least_replicas(goal)
        if demand is not None and size in timed:
            (one,) = ladders_of(
                {size: timed[size]},
                rooms={size: room(observation, size)},
                least=replicas,
                current=None,
                demand=demand,
                capacity_factor=1.0,
            )
            wanted = floors[size] + self._settings.miss_allowance * max(budget - floors[size], 0.0)
            replicas = one.least(wanted) or one.most
        replicas = max(min(replicas + goal.spare_replicas, max(room(observation, size).most, 1)), 1)
        shape = Shape(tensor_parallel_size=size, replicas=replicas)
        known = "chat is assumed" if state.mix is None else "the mix of lengths is known"
        return self._bare(
            observation,
            shape,
            "FirstShape",
            f"{_words(shape)} to begin with: {known}, and targets decide the size",
            state,
            limit="None" if fitting else "Inventory",
        )

    def _held(self, observation: Observation, state: PlannerState, unknown: str) -> Decision:
        """Never below what runs, nor below the last shape that fresh figures asked for."""
        current, last = observation.current, state.last_safe
        assert current is not None
        replicas = max(current.replicas, least_replicas(observation.goal))
        if last is not None and last.tensor_parallel_size == current.tensor_parallel_size:
            replicas = max(replicas, last.replicas)
        there = room(observation, current.tensor_parallel_size)
        shape = replace(current, replicas=max(min(there.whole(replicas), there.most), there.whole(1)))
        notes = f" ({'; '.join(observation.notes)})" if observation.notes else ""
        message = f"{_words(shape)}, held: the {unknown} is unknown{notes}"
        return self._bare(observation, shape, "MetricsUnknown", message, state)

    def _by_experience(
        self, observation: Observation, state: PlannerState, demand: Demand, assessment: Assessment
    ) -> Decision:
        current = observation.current
        assert current is not None
        found = without_table.sized(observation, state, demand, settled=_has_settled(observation, state))
        state, goal = found.state, observation.goal
        there = room(observation, current.tensor_parallel_size)
        wanted = max(found.replicas, least_replicas(goal)) + goal.spare_replicas
        proven = replace(current, replicas=max(min(there.whole(wanted), there.most), there.whole(1)))
        band = band_of(state, now_s=observation.now_s, settings=self._settings)
        shape, reason = proven, _MORE
        if proven.replicas <= current.replicas <= there.most:
            shape, reason = current, _SAME
            if assessment.may_lower and demand.measured_per_s is not None and not observation.changing:
                lowered = there.whole(lowered_to(observation, state, proven=proven.replicas, band=band))
                shape = replace(current, replicas=lowered)
                reason = reason if lowered == current.replicas else "CheaperShapeSafe"
        state = recorded(observation, state, proven=proven, chosen=shape, settings=self._settings)
        state = replace(state, last_safe=shape, looked_at_s=observation.now_s)
        message = f"{_words(shape)}: {found.why}"
        limit = there.limit if max(wanted, current.replicas) > there.most else "None"
        return self._bare(observation, shape, reason, message, state, limit=limit)

    def _nothing_fits(self, observation: Observation, state: PlannerState) -> Decision:
        current = observation.current
        assert current is not None
        there = room(observation, current.tensor_parallel_size)
        shape = replace(current, replicas=max(min(current.replicas, there.most), there.whole(1)))
        message = f"{_words(shape)}, held: not one replica of any allowed size fits"
        decision = self._bare(observation, shape, "Limited", message, state, limit=there.limit)
        return replace(decision, feasible=False)

    def _bare(
        self,
        observation: Observation,
        shape: Shape,
        reason: Reason,
        message: str,
        state: PlannerState,
        *,
        limit: Limit = "None",
    ) -> Decision:
        return Decision(
            shape=shape,
            reason=reason,
            message=message + _granted(observation, limit),
            feasible=None,
            limit=limit,
            predicted=None,
            candidates=(),
            would_change=(),
            confidence=0.0,
            state=replace(state, looked_at_s=observation.now_s),
        )


def _settled_since_s(observation: Observation, state: PlannerState) -> float | None:
    group, current = _only(observation), observation.current
    quiet = (
        group is not None
        and current is not None
        and group.ready == current.replicas
        and (
            group.tensor_parallel_size == current.tensor_parallel_size
            and not group.starting
            and not group.draining
            and not observation.changing
        )
    )
    since = state.settled_since_s
    if not quiet:
        return None
    return observation.now_s if since is None else min(since, observation.now_s)


def _has_settled(observation: Observation, state: PlannerState) -> bool:
    """Long enough for every window to show this shape alone."""
    since = state.settled_since_s
    return since is not None and observation.now_s - since >= 1.5 * observation.traffic.window_s


def _only(observation: Observation) -> Group | None:
    """The one group that serves; None where there are two or none."""
    serving = [one for one in observation.groups if one.ready or one.starting]
    return serving[0] if len(serving) == 1 and serving[0].ready else None


def _passed_s(observation: Observation, state: PlannerState) -> float:
    last = state.looked_at_s
    return 15.0 if last is None else min(max(observation.now_s - last, 0.0), 600.0)


def _granted(observation: Observation, limit: Limit) -> str:
    """The rest of a message, where the cluster's share is what binds."""
    grant = observation.grant
    return f"; {grant.why}" if grant is not None and grant.limit == limit else ""


def _words(shape: Shape) -> str:
    return f"{shape.replicas} × TP{shape.tensor_parallel_size}"
