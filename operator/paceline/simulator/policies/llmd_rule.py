"""The score of llm-d's latency-driven path: how much of the targets the 90th percentiles use up.

The score drives an HPA by its own thresholds: above `up_above` more, below `down_below` fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HIGHEST_SCORE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmdSettings:
    look_back_s: float = 45.0
    up_above: float = 0.55
    down_below: float = 0.40
    poll_s: float = 15.0


def score(*, ttft_p90_s: float, tpot_p90_s: float, ttft_target_s: float, tpot_target_s: float) -> float:
    return min(max(ttft_p90_s / ttft_target_s, tpot_p90_s / tpot_target_s), HIGHEST_SCORE)


def recommended(mean_score: float, settings: LlmdSettings, *, ready: int, replicas: int) -> int:
    """Replicas for the mean of the scores. Replicas that still warm up are credited: the score of what is ready
    is spread over all."""
    credited = mean_score * ready / replicas if replicas else mean_score
    if credited > settings.up_above:
        return max(math.ceil(replicas * credited / settings.up_above), replicas + 1)
    if mean_score < settings.down_below:
        return replicas - 1
    return replicas
