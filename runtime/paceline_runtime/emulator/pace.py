"""How long each step takes: the timing table, under the conditions that hold now."""

from __future__ import annotations

import math
import random
from typing import Final

from paceline_core.batch import Step
from paceline_core.timing import StepTiming
from paceline_runtime.emulator.current import Current

SLOW_FACTOR: Final = 5.0
"""of the fault Slow"""


class Pace:
    def __init__(self, timing: StepTiming, current: Current, *, seed: int) -> None:
        self._gpu = timing.corrected(scale=1, overhead_s=0)
        self._table_delta_s = timing.overhead_s
        self._current = current
        self._random = random.Random(seed)

    def step_s(self, step: Step) -> float:
        conditions = self._current.conditions
        delta_s = self._table_delta_s if conditions.delta_s is None else conditions.delta_s
        takes_s = self._current.kappa * step.duration_s(self._gpu) + delta_s
        if conditions.fault == "Slow":
            takes_s *= SLOW_FACTOR
        if sigma := conditions.noise:
            takes_s *= math.exp(self._random.gauss(-sigma * sigma / 2, sigma))
        return takes_s
