"""Spends the error budget evenly: an objective of 99 % means that one request in a hundred may miss.

A shape is chosen for the misses it is expected to have. Whole replicas, calm and caution leave it better than that
most of the time, so the budget would stay unspent and every hour of it would cost GPUs. Exact counters say what
was missed; as long as it is less than the share that is meant to be used, shapes may be expected to miss more,
and the other way round. Slow, over hours, and within a fixed band: a bad minute must not change the course, and a
good week must not be paid back in a bad hour.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from paceline.planner.observation import Observation
from paceline.planner.settings import PlannerSettings
from paceline.planner.state import Pace, PlannerState

_REQUESTS_MEMORY: Final = 1 / 60
_OVERSPENT_MOST: Final = 10.0
"""One window counts for at most so many budgets: a blackout is not paid back for days. With 30, four bad minutes took the
share from eight budgets to 0.4, and bought ten replicas; with 5 bursts were not paid back (docs/benchmark.md)."""


def paced(observation: Observation, state: PlannerState, *, settings: PlannerSettings) -> PlannerState:
    """The state after this look; a window is counted once."""
    figure, window_s = observation.attainment, observation.traffic.window_s
    good, budget = figure.fresh, 1 - observation.goal.objective
    requests = figure.samples
    if good is None or not 0 <= good <= 1 or requests is None or not requests > 0 or budget <= 0:
        return state
    old = state.pace
    if old is None or old.counted_at_s > observation.now_s:
        return replace(
            state,
            pace=Pace(
                factor=1.0 if old is None else old.factor,
                requests_per_window=requests,
                counted_at_s=observation.now_s,
            ),
        )
    if observation.now_s - old.counted_at_s < window_s:
        return state
    usual = old.requests_per_window + _REQUESTS_MEMORY * (requests - old.requests_per_window)
    spent = min((1 - good) / budget, _OVERSPENT_MOST)
    step = settings.pace_gain * (settings.budget_use - spent) / settings.budget_use
    weight = min(requests / max(usual, 1e-9), 2.0)
    factor = math.exp(math.log(old.factor) + step * weight)
    factor = min(max(factor, settings.pace_least), settings.pace_most)
    return replace(
        state,
        pace=Pace(factor=factor, requests_per_window=usual, counted_at_s=observation.now_s),
    )
