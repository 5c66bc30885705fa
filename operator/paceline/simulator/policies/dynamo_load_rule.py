"""NVIDIA Dynamo's load loop for aggregated engines in SLA mode: one up when all engines are late, one down when
the rest could carry what this one has (the consolidation check)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paceline.simulator.policies.dynamo_profile import EngineProfile

LOOP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    sensitivity: float = 0.8
    max_kv: float = 1.0
    """Share of the KV cache that the remaining engines may hold after one is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    running: float
    waiting: float
    kv_tokens: float


def estimated_ttft_s(load: EngineLoad, profile: EngineProfile, *, isl: float) -> float:
    """The prompts that wait before it, and its own."""
    return profile.prefill_s((load.waiting + 1) * isl)


def estimated_itl_s(load: EngineLoad, profile: EngineProfile, *, osl: float, isl: float) -> float:
    """An iteration with this batch and this much context, and the prefills of a balanced batch."""
    if load.running <= 0:
        return profile.decode_itl_s(batch=1, context=isl + osl / 2)
    return profile.mixed_itl_s(batch=load.running, isl=isl, osl=osl)


def step(
    loads: Sequence[EngineLoad],
    profile: EngineProfile,
    settings: LoadSettings,
    *,
    isl: float,
    osl: float,
    ttft_target_s: float,
    itl_target_s: float,
) -> Literal[-1, 0, 1]:
    """Up for prefill or for decode; down only if both agree."""
    if not loads:
        return 0
    late_first = all(estimated_ttft_s(load, profile, isl=isl) > ttft_target_s for load in loads)
    late_rest = all(estimated_itl_s(load, profile, isl=isl, osl=osl) > itl_target_s for load in loads)
    if late_first or late_rest:
        return 1
    n = len(loads)
    return (
        -1
        if n >= 2
        and _consolidates(
            loads,
            profile,
            settings,
            isl=isl,
            osl=osl,
            ttft_target_s=ttft_target_s,
            itl_target_s=itl_target_s,
        )
        else 0
    )


def _consolidates(
    loads: Sequence[EngineLoad],
    profile: EngineProfile,
    settings: LoadSettings,
    *,
    isl: float,
    osl: float,
    ttft_target_s: float,
    itl_target_s: float,
) -> bool:
    grown = len(loads) / (len(loads) - 1)
    own_s = profile.prefill_s(isl)
    for load in loads:
        after = EngineLoad(
            running=load.running * grown, waiting=load.waiting * grown, kv_tokens=load.kv_tokens * grown
        )
        if after.kv_tokens >= settings.max_kv * profile.timing.kv_cache_tokens:
            return False
        itl_s = estimated_itl_s(after, profile, isl=isl, osl=osl)
        if itl_s > settings.sensitivity * itl_target_s:
            return False
        queued_s = estimated_ttft_s(after, profile, isl=isl) - own_s
        if queued_s > settings.sensitivity * (ttft_target_s - own_s):
            return False
    return True
