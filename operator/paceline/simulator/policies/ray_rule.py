"""The rules of Ray Serve: ongoing requests a replica, and Ray Serve LLM's time to first token."""

from __future__ import annotations

import math
from dataclasses import dataclass

METRICS_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OngoingSettings:
    """Defaults of `AutoscalingConfig`."""

    target_ongoing_requests: float = 2.0
    look_back_s: float = 30.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0


class OngoingRule:
    """Acts only on a wish that lasted for the whole delay without a break."""

    def __init__(self, settings: OngoingSettings) -> None:
        self.settings = settings
        self._direction = 0
        self._since_s = 0.0

    def desired(self, ongoing: float, *, now_s: float, replicas: int) -> int:
        """`ongoing`: running and queued, all replicas, mean over the look-back. From 0 replicas at once."""
        wanted = math.ceil(ongoing / self.settings.target_ongoing_requests)
        direction = (wanted > replicas) - (wanted < replicas)
        if direction != self._direction:
            self._direction, self._since_s = direction, now_s
        if direction == 0:
            return replicas
        delay_s = self.settings.upscale_delay_s if direction > 0 else self.settings.downscale_delay_s
        if replicas > 0 and now_s - self._since_s < delay_s:
            return replicas
        self._direction = 0
        return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class TtftSettings:
    ttft_target_s: float = 2.0
    idle_ongoing: float = 1.0
    """Fewer ongoing requests a replica than this, and one may go."""
    look_back_s: float = 30.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0


class TtftRule:
    """One replica at a time, by p99 of the time to first token; Ray's delays hold here too."""

    def __init__(self, settings: TtftSettings) -> None:
        self.settings = settings
        self._direction = 0
        self._since_s = 0.0

    def wish(self, ttft_p99_s: float | None, *, ongoing_per_replica: float | None) -> int:
        """+1, −1 or 0. A figure that is missing or stale holds."""
        if ttft_p99_s is None:
            return 0
        if ttft_p99_s > self.settings.ttft_target_s:
            return 1
        idle = ongoing_per_replica is not None and ongoing_per_replica < self.settings.idle_ongoing
        return -1 if idle else 0

    def desired(
        self, ttft_p99_s: float | None, *, ongoing_per_replica: float | None, now_s: float, replicas: int
    ) -> int:
        wish = self.wish(ttft_p99_s, ongoing_per_replica=ongoing_per_replica)
        if wish != self._direction:
            self._direction, self._since_s = wish, now_s
        delay_s = self.settings.upscale_delay_s if wish > 0 else self.settings.downscale_delay_s
        if wish == 0 or now_s - self._since_s < delay_s:
            return replicas
        self._direction = 0
        return replicas + wish
