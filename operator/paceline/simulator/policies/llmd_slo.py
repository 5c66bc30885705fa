"""llm-d's recommended path: KEDA on a latency score, with an HPA behaviour of its own."""

from __future__ import annotations

from paceline.simulator.policies.hpa_rule import Behavior, Brakes
from paceline.simulator.policies.llmd_rule import LlmdSettings, recommended, score
from paceline.simulator.policies.sight import Sight
from paceline.simulator.policies.window import Window

BEHAVIOR = Behavior(
    up_percent=100.0,
    up_pods=4,
    up_period_s=60.0,
    up_stabilization_s=30.0,
    down_percent=None,
    down_pods=1,
    down_period_s=120.0,
    down_stabilization_s=180.0,
)

QUANTILE = 0.90
RATE_WINDOW_S = 60.0
"""Of the `rate` under each quantile."""


class LlmdSlo:
    def __init__(
        self, settings: LlmdSettings, *, ttft_target_s: float, tpot_target_s: float, max_replicas: int
    ) -> None:
        self.period_s = settings.poll_s
        self._settings = settings
        self._ttft_target_s = ttft_target_s
        self._tpot_target_s = tpot_target_s
        self._scores = Window(settings.look_back_s)
        self._brakes = Brakes(BEHAVIOR, min_replicas=1, max_replicas=max_replicas)

    def replicas(self, sight: Sight) -> int:
        ttft_s, tpot_s = sight.ttft_s(QUANTILE, RATE_WINDOW_S), sight.tpot_s(QUANTILE, RATE_WINDOW_S)
        if ttft_s is not None or tpot_s is not None:
            self._scores.add(
                score(
                    ttft_p90_s=ttft_s or 0.0,
                    tpot_p90_s=tpot_s or 0.0,
                    ttft_target_s=self._ttft_target_s,
                    tpot_target_s=self._tpot_target_s,
                ),
                now_s=sight.now_s,
            )
        self._scores.forget(sight.now_s)
        mean_score = self._scores.mean()
        if mean_score is None:
            return sight.asked
        wanted = recommended(
            mean_score, self._settings, ready=min(sight.ready, sight.asked), replicas=sight.asked
        )
        return self._brakes.settle(wanted, now_s=sight.now_s, replicas=sight.asked)
