"""Load predictors that NVIDIA Dynamo's planner ships: constant, and a Kalman filter with a local linear trend.

Its default, auto-ARIMA, is not built here; the Kalman filter takes its place. Both forecast one adjustment
interval ahead from one figure an interval.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

LEAST_POINTS = 5
LEVEL_NOISE, TREND_NOISE, MEASUREMENT_NOISE = 1.0, 0.1, 10.0


class Predictor(Protocol):
    def add(self, value: float) -> None: ...

    def next(self) -> float | None:
        """None before the first figure."""


class ConstantPredictor:
    """The next interval is as the last."""

    def __init__(self) -> None:
        self._last: float | None = None

    def add(self, value: float) -> None:
        self._last = value

    def next(self) -> float | None:
        return self._last


class KalmanPredictor:
    """Level and trend; the last figure itself until there are five."""

    def __init__(self) -> None:
        self._points = 0
        self._last: float | None = None
        self._state = np.zeros(2)
        self._spread = np.eye(2) * 1e3

    def add(self, value: float) -> None:
        if self._points == 0:
            self._state = np.array([value, 0.0])
        move = np.array([[1.0, 1.0], [0.0, 1.0]])
        state = move @ self._state
        spread = move @ self._spread @ move.T + np.diag([LEVEL_NOISE, TREND_NOISE])
        gain = spread[:, 0] / (spread[0, 0] + MEASUREMENT_NOISE)
        self._state = state + gain * (value - state[0])
        self._spread = spread - np.outer(gain, spread[0, :])
        self._points += 1
        self._last = value

    def next(self) -> float | None:
        if self._points < LEAST_POINTS:
            return self._last
        return max(float(self._state[0] + self._state[1]), 0.0)
