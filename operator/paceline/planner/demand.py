"""What capacity is to be made for: the traffic at the look-ahead, with what is already waiting."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paceline.planner.observation import Observation
from paceline.planner.settings import PlannerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    requests_per_s: float
    """The rate that capacity is made for: upper quantile, backlog included."""
    measured_per_s: float
    backlog_per_s: float
    """Waiting requests over the time within which they are to be worked off."""


def demand_of(observation: Observation, *, settings: PlannerSettings) -> Demand | None:
    """None: the rate is not known."""
    traffic = observation.traffic
    rate = traffic.requests_per_s.fresh
    if rate is None or not math.isfinite(rate) or rate < 0:
        return None
    noise = math.sqrt(max(rate, 1 / traffic.window_s) / max(traffic.window_s, 1.0))
    backlog = waiting_requests(observation) / settings.recovery_s
    return Demand(
        requests_per_s=rate + settings.demand_sigmas * noise + backlog,
        measured_per_s=rate,
        backlog_per_s=backlog,
    )


def waiting_requests(observation: Observation) -> float:
    """At the gate and in the engines' queues; what is not known counts as none."""
    figures = [observation.traffic.held_requests, *(one.waiting for one in observation.groups)]
    values = [one.fresh for one in figures]
    return sum(value for value in values if value is not None and math.isfinite(value) and value > 0)
