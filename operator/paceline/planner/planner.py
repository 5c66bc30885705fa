"""Observation in, decision out: the order in which the rules are asked.

Called by the controller and the simulator, once a tick and service. The state is an argument; what is kept
between two calls in the object is a cache of tables and changes no answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from paceline.planner.capacity import least_replicas, room
from paceline.planner.decision import Candidate, Decision, Limit, Reason
from paceline.planner.demand import Demand, demand_of
from paceline.planner.ladder import Ladder, ladder
from paceline.planner.mix import Mix, points_of
from paceline.planner.observation import Observation, Shape
from paceline.planner.performance import ReplicaModel
from paceline.planner.settings import PlannerSettings
from paceline.planner.state import PlannerState, Recommendation
from paceline_core.timing import StepTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """A shape and why, before the candidates are written down."""

    shape: Shape
    wanted: Shape
    """What it would be with no regard to calm."""
    reason: Reason
    message: str
    feasible: bool | None
    limit: Limit = "None"


class Planner:
    """The planner of one service.

    `timing` has one entry a tensor-parallel size that the model can run at; a size without an entry is never
    chosen. An empty mapping is allowed: then the size is held.
    """

    def __init__(self, *, timing: Mapping[int, StepTiming], settings: PlannerSettings | None = None) -> None:
        self._timing = dict(timing)
        self._settings = settings or PlannerSettings()

    def decide(self, observation: Observation, state: PlannerState | None = None) -> Decision:
        state = state or PlannerState()
        state = _with_mix(observation, state)
        demand = demand_of(observation, settings=self._settings)
        mix = _mix_of(state)
        if demand is None or mix is None or observation.current is None:
            return self._hold(observation, state, demand, mix)
        ladders = self._ladders(observation, mix, demand)
        choice = self._choose(observation, state, demand, ladders)
        return self._decision(observation, state, choice, ladders)

    def _ladders(self, observation: Observation, mix: Mix, demand: Demand) -> tuple[Ladder, ...]:
        goal = observation.goal
        sizes = [size for size in sorted(set(goal.allowed_tensor_parallel_sizes)) if size in self._timing]
        most = max(self._settings.max_candidates // max(len(sizes), 1), 1)
        found = []
        for size in sizes:
            there = room(observation, size)
            if there.most < least_replicas(goal):
                continue
            model = ReplicaModel(self._timing[size], mix=mix, goal=goal)
            found.append(
                ladder(
                    model,
                    size=size,
                    room=there,
                    least=least_replicas(goal),
                    requests_per_s=demand.requests_per_s,
                    most_candidates=most,
                )
            )
        return tuple(found)

    def _hold(
        self, observation: Observation, state: PlannerState, demand: Demand | None, mix: Mix | None
    ) -> Decision:
        goal, current = observation.goal, observation.current
        if current is None:
            sizes = sorted(set(goal.allowed_tensor_parallel_sizes))
            fitting = [size for size in sizes if room(observation, size).most >= 1]
            size = (fitting or sizes)[0]
            shape = Shape(tensor_parallel_size=size, replicas=least_replicas(goal))
            message = f"first shape: {shape.replicas} × TP{size}; nothing has been measured yet"
            return _bare(shape, "FirstShape", message, state, limit="None" if fitting else "Inventory")
        what = "the request rate is unknown" if demand is None else "the mix of lengths is unknown"
        notes = f" ({'; '.join(observation.notes)})" if observation.notes else ""
        message = f"{what}{notes}: held at {current.replicas} × TP{current.tensor_parallel_size}"
        held = replace(current, replicas=max(current.replicas, least_replicas(goal)))
        return _bare(held, "MetricsUnknown", message, state)

    def _choose(
        self, observation: Observation, state: PlannerState, demand: Demand, ladders: tuple[Ladder, ...]
    ) -> _Choice:
        goal, current = observation.goal, observation.current
        assert current is not None
        wanted = 1 - (1 - goal.objective) * self._settings.miss_allowance
        mine = next((one for one in ladders if one.size == current.tensor_parallel_size), None)
        held_size = observation.changing or not self._may_change_size(observation, state)
        reach = [one for one in ladders if one.least(attainment=wanted) is not None]
        if mine is not None and (held_size or mine in reach):
            reach = [one for one in reach if one is mine] or [mine]
        best = min(
            reach or ladders,
            key=lambda one: (_gpus(one, wanted), -_best(one), one.size),
            default=None,
        )
        if best is None:
            message = f"no allowed size fits: held at {current.replicas} × TP{current.tensor_parallel_size}"
            return _Choice(
                shape=current,
                wanted=current,
                reason="Limited",
                message=message,
                feasible=False,
                limit="Inventory",
            )
        needed = best.least(attainment=wanted)
        feasible = needed is not None
        replicas = int(best.replicas[-1]) if needed is None else needed
        replicas = min(replicas + goal.spare_replicas, max(best.room.most, least_replicas(goal)))
        wish = Shape(tensor_parallel_size=best.size, replicas=replicas)
        shape, reason = self._calm(observation, state, wish, demand)
        if not feasible and reason != "Steady":
            reason = "Limited"
        rate = f"{demand.requests_per_s:.3g} requests/s"
        message = f"{shape.replicas} × TP{shape.tensor_parallel_size} for {rate}"
        limit: Limit = "None" if feasible else best.room.limit
        return _Choice(
            shape=shape, wanted=wish, reason=reason, message=message, feasible=feasible, limit=limit
        )

    def _may_change_size(self, observation: Observation, state: PlannerState) -> bool:
        since = state.size_changed_at_s
        return since is None or observation.now_s - since >= observation.goal.min_dwell_s

    def _calm(
        self, observation: Observation, state: PlannerState, shape: Shape, demand: Demand
    ) -> tuple[Shape, Reason]:
        """Up at once; down to the most that was wanted within the stabilization window."""
        current = observation.current
        assert current is not None
        if shape.tensor_parallel_size != current.tensor_parallel_size:
            return shape, "FloorAboveTarget"
        if shape.replicas > current.replicas:
            return shape, "Backlog" if demand.backlog_per_s > demand.measured_per_s else "QueueingAboveTarget"
        window = observation.goal.scale_down_stabilization_s
        recent = [
            one.shape.replicas
            for one in state.recommendations
            if observation.now_s - one.at_s <= window
            and one.shape.tensor_parallel_size == shape.tensor_parallel_size
        ]
        oldest = min((one.at_s for one in state.recommendations), default=observation.now_s)
        most = max([shape.replicas, *recent])
        if observation.now_s - oldest < window:
            most = max(most, current.replicas)
        most = min(most, current.replicas)
        if most < current.replicas:
            return replace(shape, replicas=most), "CheaperShapeSafe"
        return current, "Steady"

    def _decision(
        self, observation: Observation, state: PlannerState, choice: _Choice, ladders: tuple[Ladder, ...]
    ) -> Decision:
        current = observation.current
        candidates = []
        predicted = None
        for one in ladders:
            for index in range(one.replicas.size):
                shape = one.shape(index)
                prediction = one.outlook.prediction(index)
                chosen = shape == choice.shape
                predicted = prediction if chosen else predicted
                rejected = None if chosen else "not chosen"
                candidates.append(
                    Candidate(shape=shape, gpus=shape.gpus, prediction=prediction, rejected=rejected)
                )
        now = observation.now_s
        kept = tuple(
            one
            for one in state.recommendations
            if now - one.at_s <= observation.goal.scale_down_stabilization_s * 1.5
        )
        changed = current is not None and choice.shape.tensor_parallel_size != current.tensor_parallel_size
        state = replace(
            state,
            last_safe=choice.shape,
            recommendations=(*kept, Recommendation(at_s=now, shape=choice.wanted)),
            size_changed_at_s=now if changed else state.size_changed_at_s,
        )
        return Decision(
            shape=choice.shape,
            reason=choice.reason,
            message=choice.message,
            feasible=choice.feasible,
            limit=choice.limit,
            predicted=predicted,
            candidates=tuple(candidates),
            would_change=(),
            confidence=0.0,
            state=state,
        )


def _gpus(one: Ladder, attainment: float) -> float:
    needed = one.least(attainment=attainment)
    return math.inf if needed is None else needed * one.size


def _best(one: Ladder) -> float:
    return float(one.outlook.attainment.max())


def _bare(
    shape: Shape, reason: Reason, message: str, state: PlannerState, *, limit: Limit = "None"
) -> Decision:
    return Decision(
        shape=shape,
        reason=reason,
        message=message,
        feasible=None,
        limit=limit,
        predicted=None,
        candidates=(),
        would_change=(),
        confidence=0.0,
        state=state,
    )


def _with_mix(observation: Observation, state: PlannerState) -> PlannerState:
    traffic = observation.traffic
    cached = traffic.cached_prompt_share.fresh
    known = cached is not None and math.isfinite(cached)
    return replace(
        state,
        prompt=traffic.prompt or state.prompt,
        output=traffic.output or state.output,
        cached_prompt_share=min(max(cached, 0.0), 0.99) if known and cached is not None else 0.0,
    )


def _mix_of(state: PlannerState) -> Mix | None:
    if state.prompt is None or state.output is None:
        return None
    prompt, output = points_of(state.prompt), points_of(state.output)
    if prompt is None or output is None:
        return None
    return Mix(prompt=prompt, output=output, cached_share=state.cached_prompt_share)
