"""Replicas for a model and GPU that no table knows: from the service's own experience alone, more cautiously.

It remembers the highest rate of one replica at which the objective was met, keeps the tensor-parallel size, adds
when the objective is missed or requests queue, and takes away only what stays under that rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from paceline.planner.demand import Demand
from paceline.planner.observation import Group, Observation
from paceline.planner.state import PlannerState

_KV_MOST: Final = 0.85
_WAITING_MOST: Final = 1.0
"""Requests queueing at one replica above which another is added."""
_CAUTION: Final = 0.9
"""Share of the proven rate that a smaller shape uses: one good window proves little."""
_STEP: Final = 0.2
"""Share of replicas that one look adds when the objective is missed."""
_LEAST_REQUESTS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    replicas: int
    why: str
    state: PlannerState


def sized(observation: Observation, state: PlannerState, demand: Demand, *, settled: bool) -> Sized:
    """`settled`: all replicas that are told to run are Ready, and have been for a window."""
    current = observation.current
    assert current is not None
    groups = [one for one in observation.groups if one.ready]
    ready = sum(one.ready for one in groups)
    good, samples = observation.attainment.fresh, observation.attainment.samples
    judged = good is not None and math.isfinite(good) and (samples is None or samples >= _LEAST_REQUESTS)
    missed = judged and good is not None and good < observation.goal.objective
    crowded = any(_crowded(one) for one in groups)
    safe = state.safe_rate_per_replica
    rate = demand.measured_per_s
    if settled and ready and rate is not None and judged:
        here = rate / ready
        if missed or crowded:
            safe = None if safe is None else min(safe, here * _CAUTION)
        elif safe is None or here > safe:
            safe = here
    state = replace(state, safe_rate_per_replica=safe)
    if missed or crowded:
        more = math.ceil(max(current.replicas, 1) * _STEP)
        what = "the objective is missed" if missed else "requests queue"
        # Replicas that start already were asked for by the same need.
        wanted = current.replicas if not settled else current.replicas + more
        return Sized(replicas=wanted, why=f"no timing table, and {what}", state=state)
    if safe is None or safe <= 0:
        return Sized(replicas=current.replicas, why="no timing table and nothing proven yet", state=state)
    needed = math.ceil(float(demand.rates[3]) / (safe * _CAUTION))
    if needed > current.replicas:
        # Ahead of misses and queues, only for traffic that is clearly beyond what was proven.
        needed = max(math.ceil(demand.planned_per_s * _CAUTION / safe), current.replicas)
    why = f"no timing table: one replica is proven at {safe:.3g} requests/s"
    return Sized(replicas=max(needed, 1), why=why, state=state)


def _crowded(group: Group) -> bool:
    usage, waiting = group.kv_cache_usage.fresh, group.waiting.fresh
    full = usage is not None and math.isfinite(usage) and usage > _KV_MOST
    return full or (waiting is not None and math.isfinite(waiting) and waiting > _WAITING_MOST * group.ready)
