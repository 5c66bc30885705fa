"""What capacity is to be made for: the traffic over the start time of a replica, and what is already waiting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from paceline.planner.forecast import Forecast, extended, forecast
from paceline.planner.observation import Observation
from paceline.planner.settings import PlannerSettings
from paceline.planner.state import ForecastMemory

Floats = npt.NDArray[np.float64]

_SCORES: Final = np.array([-2.856970, -1.355626, 0.0, 1.355626, 2.856970])
_WEIGHTS: Final = np.array([0.011257, 0.222076, 0.533333, 0.222076, 0.011257])
"""Gauss and Hermite's five points of a standard normal variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    measured_per_s: float | None
    """None: the rate is unknown, and the last forecast stands in for it."""
    expected_per_s: float
    """The larger of now and one look-ahead from now: a replica taken away today is missed today."""
    growing: bool
    """One look-ahead from now is clearly above now."""
    sigma: float
    backlog_per_s: float
    """Waiting requests over the time within which they are to be worked off."""
    seasonal: bool
    jump_per_s: float | None
    """What a jump that is expected within the look-ahead would lead to; None: none is."""
    look_ahead_s: float
    rates: Floats
    """What may come, with the backlog; a jump last, where some came back."""
    weights: Floats
    """Share of the requests that come at each of them."""

    @property
    def planned_per_s(self) -> float:
        return self.expected_per_s + self.backlog_per_s

    @property
    def highest_per_s(self) -> float:
        """The same in the jump, where one is expected."""
        return max(self.expected_per_s, self.jump_per_s or 0.0) + self.backlog_per_s


def demand_of(
    observation: Observation, memory: ForecastMemory | None, *, settings: PlannerSettings
) -> tuple[Demand | None, ForecastMemory | None]:
    """With the memory after this look. No demand: neither the rate nor a recent forecast is known."""
    rate, window_s = observation.traffic.requests_per_s.fresh, observation.traffic.window_s
    ahead_s = look_ahead_s(observation, settings=settings)
    if rate is None or not math.isfinite(rate) or rate < 0 or not window_s > 0:
        if memory is None or observation.now_s - memory.at_s > settings.blind_forecast_s:
            return None, memory
        said = extended(memory, now_s=observation.now_s, look_ahead_s=ahead_s)
        return _demand(said, None, observation, settings=settings, look_ahead_s=ahead_s), memory
    said, memory = forecast(
        memory, now_s=observation.now_s, rate=rate, window_s=window_s, look_ahead_s=ahead_s
    )
    return _demand(said, rate, observation, settings=settings, look_ahead_s=ahead_s), memory


def _demand(
    said: Forecast,
    measured: float | None,
    observation: Observation,
    *,
    settings: PlannerSettings,
    look_ahead_s: float,
) -> Demand:
    expected = max(said.now_per_s, said.ahead_per_s)
    backlog = waiting_requests(observation) / settings.recovery_s
    rates = expected * np.exp(_SCORES * said.sigma * settings.demand_sigmas)
    shares = _WEIGHTS * np.maximum(rates, 1e-12)
    shares /= shares.sum()
    jump_per_s = None
    if (jump := said.jump) is not None:
        jump_per_s = jump.rate_per_s(expected)
        rates = np.append(rates, jump_per_s)
        shares = np.append(shares * (1 - jump.share), jump.share)
    return Demand(
        measured_per_s=measured,
        expected_per_s=expected,
        growing=said.ahead_per_s > said.now_per_s * 1.1,
        sigma=said.sigma,
        backlog_per_s=backlog,
        seasonal=said.seasonal,
        jump_per_s=jump_per_s,
        look_ahead_s=look_ahead_s,
        rates=rates + backlog,
        weights=shares,
    )


def look_ahead_s(observation: Observation, *, settings: PlannerSettings) -> float:
    """The learned start time of the current size, p90; else of the slowest size known; else the default."""
    current = observation.current
    known = {
        one.tensor_parallel_size: one.p90_s
        for one in observation.start_times
        if one.starts > 0 and math.isfinite(one.p90_s) and one.p90_s > 0
    }
    if current is not None and current.tensor_parallel_size in known:
        found = known[current.tensor_parallel_size]
    else:
        found = max(known.values(), default=settings.start_time_default_s)
    return max(found, settings.start_time_least_s)


def waiting_requests(observation: Observation) -> float:
    """At the gate and in the engines' queues; what is not known counts as none."""
    figures = [observation.traffic.held_requests, *(one.waiting for one in observation.groups)]
    values = [one.fresh for one in figures]
    return sum(value for value in values if value is not None and math.isfinite(value) and value > 0)
