"""AIBrix's APA on the engines' KV cache use, as in its sample."""

from __future__ import annotations

from paceline.simulator.policies.aibrix_rule import RESYNC_S, ApaRule, ApaSettings
from paceline.simulator.policies.sight import Sight
from paceline.simulator.policies.window import Window


class AibrixApa:
    period_s = RESYNC_S

    def __init__(self, settings: ApaSettings) -> None:
        self._rule = ApaRule(settings)
        self._average = Window(settings.window_s)

    def replicas(self, sight: Sight) -> int:
        samples = sight.samples()
        if samples:
            self._average.add(sum(sample.kv_usage for sample in samples) / len(samples), now_s=sight.now_s)
        self._average.forget(sight.now_s)
        average = self._average.mean()
        if average is None:
            return sight.asked
        return self._rule.desired(average, now_s=sight.now_s, replicas=sight.asked)
