"""The rule of AIBrix's APA: a ratio with a tolerance on either side, on a per-pod mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paceline.simulator.policies.window import Window

RESYNC_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApaSettings:
    """Defaults of the controller; the target is that of `samples/autoscaling/apa.yaml`."""

    target: float = 0.5
    window_s: float = 180.0
    up_tolerance: float = 0.1
    down_tolerance: float = 0.1
    max_up: float = 2.0
    max_down: float = 2.0
    down_cooldown_s: float = 300.0


class ApaRule:
    def __init__(self, settings: ApaSettings) -> None:
        self.settings = settings
        self._recommended = Window(settings.down_cooldown_s)

    def recommended(self, average: float, *, replicas: int) -> int:
        """`average`: the metric's mean over pods and over the stable window."""
        settings = self.settings
        ratio = average / settings.target
        if ratio > 1 + settings.up_tolerance:
            return min(math.ceil(replicas * ratio), math.ceil(replicas * settings.max_up))
        if ratio < 1 - settings.down_tolerance:
            return max(math.ceil(replicas * ratio), math.floor(replicas / settings.max_down))
        return replicas

    def desired(self, average: float, *, now_s: float, replicas: int) -> int:
        """Down only to the highest recommendation of the cool-down."""
        wanted = self.recommended(average, replicas=replicas)
        self._recommended.add(wanted, now_s=now_s)
        return wanted if wanted >= replicas else min(replicas, int(self._recommended.highest(wanted)))
