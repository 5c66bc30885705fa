"""Holds predicted attainment against what the exact counters say, and corrects the capacity.

κ corrects the time of a step; what is left (burstier arrivals than Poisson, a worse router, lengths that go
together) shows only in the misses. When the service misses clearly more than predicted for long enough, every
rate is planned as if it were higher by a few per cent; the reverse too, within tighter bounds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from paceline.planner.state import PlannerState, Scoreboard

LEAST, MOST = 0.8, 1.1
_MEMORY_S: Final = 1800.0
_CLUSTERED: Final = 4.0
"""Variance of misses over Poisson's: they come together."""
_SIGMAS: Final = 2.0
_DOWN: Final = 0.02
_UP: Final = 0.004
"""Down fast, up slowly: a wrong step up costs requests, a wrong step down a little money."""


def experienced(
    state: PlannerState, *, attainment: float, predicted: float, requests: float, passed_s: float
) -> PlannerState:
    """After a window in which nothing changed."""
    kept = math.exp(-passed_s / _MEMORY_S)
    old = state.scoreboard or Scoreboard(requests=0.0, observed=0.0, predicted=0.0)
    board = Scoreboard(
        requests=old.requests * kept + requests,
        observed=old.observed * kept + requests * (1 - attainment),
        predicted=old.predicted * kept + requests * (1 - predicted),
    )
    noise = _SIGMAS * math.sqrt(_CLUSTERED * max(board.predicted, board.observed, 1.0))
    factor = state.capacity_factor
    if board.observed > board.predicted + noise:
        factor = max(factor * (1 - _DOWN), LEAST)
    elif board.predicted > board.observed + noise:
        factor = min(factor * (1 + _UP), MOST)
    return replace(state, scoreboard=board, capacity_factor=factor)
