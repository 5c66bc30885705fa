"""Ray Serve: its own autoscaler on ongoing requests, and Ray Serve LLM's on the time to first token."""

from __future__ import annotations

from paceline.simulator.policies.ray_rule import (
    METRICS_INTERVAL_S,
    OngoingRule,
    OngoingSettings,
    TtftRule,
    TtftSettings,
)
from paceline.simulator.policies.sight import Sight
from paceline.simulator.policies.window import Window

TTFT_WINDOW_S = 60.0


class RayOngoing:
    """The control loop runs ten times a second, but on figures that come every ten."""

    period_s = METRICS_INTERVAL_S

    def __init__(self, settings: OngoingSettings) -> None:
        self._rule = OngoingRule(settings)
        self._ongoing = Window(settings.look_back_s)

    def replicas(self, sight: Sight) -> int:
        samples = sight.samples()
        if samples or sight.held:
            ongoing = sight.held + sum(sample.running + sample.waiting for sample in samples)
            self._ongoing.add(ongoing, now_s=sight.now_s)
        self._ongoing.forget(sight.now_s)
        ongoing_mean = self._ongoing.mean()
        if ongoing_mean is None:
            return sight.asked
        return self._rule.desired(ongoing_mean, now_s=sight.now_s, replicas=sight.asked)


class RayTtft:
    period_s = METRICS_INTERVAL_S

    def __init__(self, settings: TtftSettings) -> None:
        self._rule = TtftRule(settings)

    def replicas(self, sight: Sight) -> int:
        samples = sight.samples()
        per_replica = (
            sum(sample.running + sample.waiting for sample in samples) / len(samples) if samples else None
        )
        return self._rule.desired(
            sight.ttft_s(0.99, TTFT_WINDOW_S) if samples else None,
            ongoing_per_replica=per_replica,
            now_s=sight.now_s,
            replicas=sight.asked,
        )
