"""NVIDIA Dynamo's classic SLA planner: prefill and decode engines by profile, forecast and correction factors.

The planner was made for disaggregated serving. On aggregated engines the same two needs are shares of the same
engines: they are added before they are rounded up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paceline.simulator.policies.dynamo_profile import EngineProfile

ADJUSTMENT_INTERVAL_S = 180.0
LEAST_DECODE_CORRECTION = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What was seen in one adjustment interval. Latencies None: nothing finished."""

    requests: float
    isl: float
    osl: float
    ttft_s: float | None
    itl_s: float | None
    request_s: float | None
    """Mean time from arrival to the last token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """Observed latency over the profile's: how much worse the world is than the profiler's closed loop."""

    prefill: float = 1.0
    decode: float = 1.0

    @classmethod
    def of(cls, seen: Interval, profile: EngineProfile, *, replicas: int, interval_s: float) -> Corrections:
        prefill = decode = 1.0
        if seen.ttft_s is not None and seen.isl > 0:
            prefill = seen.ttft_s / profile.prefill_s(seen.isl)
        if seen.itl_s is not None and seen.request_s is not None and replicas:
            concurrency = seen.requests / replicas * seen.request_s / interval_s
            expected = profile.decode_itl_s(batch=max(concurrency, 1.0), context=seen.isl + seen.osl / 2)
            decode = seen.itl_s / expected
        return cls(prefill=prefill, decode=max(decode, LEAST_DECODE_CORRECTION))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """In engines, not yet rounded."""

    prefill: float
    decode: float

    @property
    def aggregated(self) -> int:
        return max(math.ceil(self.prefill + self.decode), 1)


def needs(
    *,
    requests: float,
    isl: float,
    osl: float,
    profile: EngineProfile,
    corrections: Corrections,
    itl_target_s: float,
    interval_s: float,
) -> Needs:
    """Engines for the forecast requests of the next interval."""
    prefill_load = requests * isl / interval_s * min(1.0, corrections.prefill)
    decode_load = requests * osl / interval_s
    prefill = prefill_load / profile.prefill_tokens_per_s(isl) if isl > 0 else 0.0
    decode = decode_load / profile.best_decode_tokens_per_s(
        itl_target_s=itl_target_s / corrections.decode, context=isl + osl / 2
    )
    return Needs(prefill=prefill, decode=decode)
