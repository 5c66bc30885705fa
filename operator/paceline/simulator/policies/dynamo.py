"""NVIDIA Dynamo's planner: the classic SLA loop, and the load loop with its consolidation check.

Both size aggregated engines of one tensor-parallel size, chosen before deployment.
"""

from __future__ import annotations

import math
from typing import Final

from paceline.simulator.policies import dynamo_load_rule
from paceline.simulator.policies.dynamo_load_rule import EngineLoad, LoadSettings
from paceline.simulator.policies.dynamo_predictor import KalmanPredictor
from paceline.simulator.policies.dynamo_profile import EngineProfile
from paceline.simulator.policies.dynamo_sla_rule import (
    ADJUSTMENT_INTERVAL_S,
    Corrections,
    Interval,
    needs,
)
from paceline.simulator.policies.sight import Sight

HIGHEST_STEP: Final = 8
"""Replicas that one look of the throughput loop may add or take."""


class _Forecast:
    """Requests, prompt and output tokens of the next interval."""

    def __init__(self) -> None:
        self._requests = KalmanPredictor()
        self._isl = KalmanPredictor()
        self._osl = KalmanPredictor()

    def look(self, sight: Sight, interval_s: float) -> Interval | None:
        """What the interval that ends now was, and the forecast moves on. None: no answer."""
        rate = sight.requests_per_s(interval_s)
        isl, osl = sight.prompt_tokens(interval_s), sight.output_tokens(interval_s)
        if rate is None or isl is None or osl is None:
            return None
        self._requests.add(rate * interval_s)
        self._isl.add(isl)
        self._osl.add(osl)
        return Interval(
            requests=rate * interval_s,
            isl=isl,
            osl=osl,
            ttft_s=sight.mean_ttft_s(interval_s),
            itl_s=sight.mean_tpot_s(interval_s),
            request_s=sight.mean_request_s(interval_s),
        )

    def next(self) -> tuple[float, float, float]:
        return (
            self._requests.next() or 0.0,
            max(self._isl.next() or 1.0, 1.0),
            max(self._osl.next() or 1.0, 1.0),
        )


class DynamoSla:
    def __init__(
        self, profile: EngineProfile, *, itl_target_s: float, interval_s: float, corrects: bool
    ) -> None:
        self.period_s = interval_s
        self._profile = profile
        self._itl_target_s = itl_target_s
        self._corrects = corrects
        self._forecast = _Forecast()

    def replicas(self, sight: Sight) -> int:
        seen = self._forecast.look(sight, self.period_s)
        if seen is None:
            return sight.asked
        corrections = (
            Corrections.of(seen, self._profile, replicas=sight.ready, interval_s=self.period_s)
            if self._corrects
            else Corrections()
        )
        requests, isl, osl = self._forecast.next()
        return needs(
            requests=requests,
            isl=isl,
            osl=osl,
            profile=self._profile,
            corrections=corrections,
            itl_target_s=self._itl_target_s,
            interval_s=self.period_s,
        ).aggregated


class DynamoLoad:
    """The load loop moves one replica at a time; the throughput loop, every interval, is its lower bound."""

    period_s = dynamo_load_rule.LOOP_S

    def __init__(
        self,
        profile: EngineProfile,
        settings: LoadSettings,
        *,
        ttft_target_s: float,
        itl_target_s: float,
    ) -> None:
        self._profile = profile
        self._settings = settings
        self._ttft_target_s = ttft_target_s
        self._itl_target_s = itl_target_s
        self._forecast = _Forecast()
        self._next_look_s = ADJUSTMENT_INTERVAL_S
        self._floor = 1

    def replicas(self, sight: Sight) -> int:
        if sight.now_s >= self._next_look_s:
            self._next_look_s = sight.now_s + ADJUSTMENT_INTERVAL_S
            self._raise_floor(sight)
        if sight.ready != sight.asked:
            return max(sight.asked, self._floor)
        isl, osl = sight.prompt_tokens(ADJUSTMENT_INTERVAL_S), sight.output_tokens(ADJUSTMENT_INTERVAL_S)
        if isl is None or osl is None:
            return max(sight.asked, self._floor)
        step = dynamo_load_rule.step(
            [
                EngineLoad(
                    running=sample.running,
                    waiting=sample.waiting,
                    kv_tokens=sample.kv_usage * self._profile.timing.kv_cache_tokens,
                )
                for sample in sight.samples()
            ],
            self._profile,
            self._settings,
            isl=max(isl, 1.0),
            osl=max(osl, 1.0),
            ttft_target_s=self._ttft_target_s,
            itl_target_s=self._itl_target_s,
        )
        return max(sight.asked + step, self._floor)

    def _raise_floor(self, sight: Sight) -> None:
        if self._forecast.look(sight, ADJUSTMENT_INTERVAL_S) is None:
            return
        requests, isl, osl = self._forecast.next()
        each = self._profile.requests_per_s(
            isl=isl, osl=osl, ttft_target_s=self._ttft_target_s, itl_target_s=self._itl_target_s
        )
        wanted = math.ceil(requests / ADJUSTMENT_INTERVAL_S / each) if each > 0 else self._floor
        self._floor = max(1, min(max(wanted, sight.asked - HIGHEST_STEP), sight.asked + HIGHEST_STEP))
