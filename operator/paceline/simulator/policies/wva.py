"""llm-d's Workload Variant Autoscaler: saturation V1, token saturation V2, and the queueing model.

All three emit `wva_desired_replicas`, which an HPA takes over as it is. One variant here, so one tensor-parallel
size: the size is a tuned knob.
"""

from __future__ import annotations

import math

from paceline.simulator.policies import wva_saturation_rule
from paceline.simulator.policies.hpa_rule import Behavior, Brakes
from paceline.simulator.policies.sight import Sight
from paceline.simulator.policies.wva_queueing_rule import IterationModel, carried_rate
from paceline.simulator.policies.wva_saturation_rule import POLL_S, SaturationSettings
from paceline.simulator.policies.wva_token_rule import ReplicaLoad, TokenRule, TokenSettings
from paceline_core.timing import StepTiming

LENGTHS_WINDOW_S = 300.0
RATE_WINDOW_S = 60.0


def _brakes(down_stabilization_s: float, max_replicas: int) -> Brakes:
    return Brakes(
        Behavior(down_stabilization_s=down_stabilization_s), min_replicas=1, max_replicas=max_replicas
    )


class WvaSaturation:
    period_s = POLL_S

    def __init__(
        self, settings: SaturationSettings, *, down_stabilization_s: float, max_replicas: int
    ) -> None:
        self._settings = settings
        self._brakes = _brakes(down_stabilization_s, max_replicas)

    def replicas(self, sight: Sight) -> int:
        samples = sight.samples()
        step = wva_saturation_rule.step(
            [(sample.kv_usage, sample.waiting) for sample in samples], self._settings
        )
        in_transition = sight.ready != sight.asked or len(samples) != sight.ready
        wanted = sight.asked if in_transition else sight.asked + step
        return self._brakes.settle(wanted, now_s=sight.now_s, replicas=sight.asked)


class WvaTokens:
    period_s = POLL_S

    def __init__(
        self,
        settings: TokenSettings,
        *,
        kv_cache_tokens: float,
        down_stabilization_s: float,
        max_replicas: int,
    ) -> None:
        self._rule = TokenRule(settings)
        self._kv_cache_tokens = kv_cache_tokens
        self._brakes = _brakes(down_stabilization_s, max_replicas)

    def replicas(self, sight: Sight) -> int:
        prompt_tokens, output_tokens = (
            sight.prompt_tokens(LENGTHS_WINDOW_S),
            sight.output_tokens(LENGTHS_WINDOW_S),
        )
        samples = sight.samples()
        if not samples or prompt_tokens is None or output_tokens is None:
            return sight.asked
        wanted = self._rule.desired(
            [
                ReplicaLoad(
                    tokens_in_use=sample.kv_usage * self._kv_cache_tokens,
                    queue=sample.waiting,
                    kv_cache_tokens=self._kv_cache_tokens,
                )
                for sample in samples
            ],
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            pending=max(sight.asked - len(samples), 0),
        )
        return self._brakes.settle(wanted, now_s=sight.now_s, replicas=sight.asked)


class WvaQueueing:
    """`slack`: share of each target that the model may use; the means it speaks of are no percentiles."""

    period_s = POLL_S

    def __init__(
        self,
        timing: StepTiming,
        *,
        max_batch: int,
        ttft_target_s: float,
        itl_target_s: float,
        slack: float,
        down_stabilization_s: float,
        max_replicas: int,
    ) -> None:
        self._timing = timing
        self._max_batch = max_batch
        self._ttft_target_s = ttft_target_s * slack
        self._itl_target_s = itl_target_s * slack
        self._brakes = _brakes(down_stabilization_s, max_replicas)

    def replicas(self, sight: Sight) -> int:
        prompt_tokens, output_tokens = (
            sight.prompt_tokens(LENGTHS_WINDOW_S),
            sight.output_tokens(LENGTHS_WINDOW_S),
        )
        rate = sight.requests_per_s(RATE_WINDOW_S)
        if prompt_tokens is None or output_tokens is None or rate is None:
            return sight.asked
        output_tokens = max(output_tokens, 1.0)
        carried = carried_rate(
            IterationModel.of(
                self._timing,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                max_batch=self._max_batch,
            ),
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            max_batch=self._max_batch,
            ttft_target_s=self._ttft_target_s,
            itl_target_s=self._itl_target_s,
        )
        wanted = math.ceil(rate / carried) if carried > 0 else sight.asked
        return self._brakes.settle(max(wanted, 1), now_s=sight.now_s, replicas=sight.asked)
