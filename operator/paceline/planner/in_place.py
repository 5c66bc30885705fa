"""What a change within the pods costs, and where it may not be; called by `planner` before anything is chosen.

One pod after the other is away for a start. If it is the only one, whatever comes meanwhile waits at the gate, and the
wait counts in the time to the first token: all of it misses. If there are others they must carry its load, and no more
may miss meanwhile than the objective leaves. The misses of the change are spread over the expected stay and counted with
those of each shape that it leads to: so they weigh against what the shape is better by, and against the error budget.

    seconds of traffic that miss     one pod      away
                                     n pods       n × away × (misses of n − 1 pods − misses of n)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.planner.decision import Switch
from paceline.planner.demand import Demand
from paceline.planner.ladder import Ladder
from paceline.planner.observation import InPlace, Observation
from paceline.planner.settings import PlannerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    ladders: tuple[Ladder, ...]
    ruled_out: tuple[str, ...]
    """Changes in place that may not be, each in a sentence."""


def charged(
    ladders: Sequence[Ladder], *, observation: Observation, demand: Demand, settings: PlannerSettings
) -> Charged:
    """The same ladders; what a change in place leads to has its misses, or is gone."""
    means, current = observation.in_place, observation.current
    if means is None or current is None:
        return Charged(ladders=tuple(ladders), ruled_out=())
    mine = next((one for one in ladders if one.size == current.tensor_parallel_size), None)
    found: list[Ladder] = []
    ruled_out: list[str] = []
    for one in ladders:
        if not one.room.in_place:
            found.append(one)
            continue
        missed_s = _missed_s(one, mine, means=means, observation=observation, demand=demand)
        if isinstance(missed_s, str):
            ruled_out.append(f"TP{one.size} in place: {missed_s}")
            if (beside := one.without_in_place()) is not None:
                found.append(beside)
            continue
        switch = Switch(
            how="InPlace",
            gpus_beside=0,
            hold_s=means.away_s if means.pods == 1 else 0.0,
            missed=demand.planned_per_s * missed_s,
        )
        found.append(one.charged(missed_s / settings.size_stay_s, switch))
    return Charged(ladders=tuple(found), ruled_out=tuple(ruled_out))


def _missed_s(
    to: Ladder, mine: Ladder | None, *, means: InPlace, observation: Observation, demand: Demand
) -> float | str:
    """Seconds of the traffic that miss because of it; in words, why it may not be."""
    if means.pods == 1:
        coming = demand.planned_per_s * means.away_s
        if means.away_s >= means.max_hold_s:
            return (
                f"requests would be held for {means.away_s:.0f} s and more, and spec.transition.maxHoldSeconds is "
                f"{means.max_hold_s:.0f}"
            )
        if coming > means.most_held:
            return f"{coming:.0f} requests would have to be held, and the gates hold {means.most_held}"
        return means.away_s
    if mine is None:
        return "what the other pods would carry meanwhile is not known"
    others, per_pod = means.pods - 1, observation.replicas_per_pod
    left = ((mine, others * per_pod), (to, others * (means.gpus_per_pod // to.size)))
    if not all(ladder.carries(replicas, demand) for ladder, replicas in left):
        return f"the others do not carry the load while one of {means.pods} pods is away"
    now = mine.expected_miss(means.pods * per_pod, demand)
    more = max(ladder.expected_miss(replicas, demand) for ladder, replicas in left) - now
    if more > 1 - observation.goal.objective:
        return f"{more:.1%} more of the requests would miss while one of {means.pods} pods is away"
    return means.pods * means.away_s * max(more, 0.0)
