"""Knative's pod autoscaler on concurrency: its queue-proxies count requests in flight every second."""

from __future__ import annotations

from paceline.simulator.policies.knative_rule import TICK_S, KnativeRule, KnativeSettings
from paceline.simulator.policies.sight import Sight
from paceline.simulator.policies.window import Window


class Knative:
    period_s = TICK_S

    def __init__(self, settings: KnativeSettings) -> None:
        self._rule = KnativeRule(settings)
        self._stable = Window(settings.stable_window_s)
        self._panic = Window(settings.panic_window_s)
        self._delay = Window(max(settings.scale_down_delay_s, 1e-9))

    def replicas(self, sight: Sight) -> int:
        samples = sight.samples()
        if samples or sight.held:
            in_flight = sight.held + sum(sample.running + sample.waiting for sample in samples)
            self._stable.add(in_flight, now_s=sight.now_s)
            self._panic.add(in_flight, now_s=sight.now_s)
        self._stable.forget(sight.now_s)
        self._panic.forget(sight.now_s)
        stable, panic = self._stable.mean(), self._panic.mean()
        if stable is None:
            return sight.asked
        wanted = self._rule.desired(
            now_s=sight.now_s, stable=stable, panic=stable if panic is None else panic, ready=sight.ready
        )
        self._delay.add(wanted, now_s=sight.now_s)
        return int(self._delay.highest(wanted))
