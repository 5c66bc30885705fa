"""Keeps the mix of lengths: a window's histogram is noisy, so windows are added up and forgotten slowly.

A mix that differs from the memory by more than its noise replaces it: a shift to long prompts must be seen in
one look, not in ten minutes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from paceline.planner.mix import UNBOUNDED_BUCKET, Mix, points_of
from paceline.planner.observation import Lengths, Observation
from paceline.planner.state import Blend, MixMemory

_MEMORY_S: Final = 600.0
_LEAST_REQUESTS: Final = 1000.0
"""Nothing is forgotten below this: a quiet service has few requests, and they are its mix."""
_REFRESH_S: Final = 60.0
"""A window is added once, not at each look that shows it."""
_MATTERS: Final = 0.03
"""Means that differ by less give the same answers: no new tables for them…"""
_USED_S: Final = 900.0
"""…until this long after the last."""
_SPREAD: Final = 1.5
"""Standard deviation of a length over its mean, as chat and code traces have it."""
_SHIFT_SIGMAS: Final = 4.0
_LEAST_SHIFT: Final = 0.1
_CACHED_STEP: Final = 0.02
_CACHED_MOST: Final = 0.98


def remembered(memory: MixMemory | None, observation: Observation) -> MixMemory | None:
    """The memory after this look; None while no mix was ever seen."""
    traffic = observation.traffic
    prompt, output = _sound(traffic.prompt), _sound(traffic.output)
    cached = traffic.cached_prompt_share.fresh
    now_s = observation.now_s
    if cached is not None and math.isfinite(cached):
        cached = min(max(round(cached / _CACHED_STEP) * _CACHED_STEP, 0.0), _CACHED_MOST)
    else:
        cached = None
    if memory is None:
        if prompt is None or output is None:
            return None
        blend = Blend(prompt=prompt, output=output, cached_prompt_share=cached or 0.0)
        return MixMemory(blend=blend, at_s=now_s, used=blend, used_at_s=now_s, shifted_at_s=now_s)
    old = memory.blend
    shifted = _shifted(old.prompt, prompt) or _shifted(old.output, output)
    if now_s - memory.at_s < _REFRESH_S and not shifted:
        return memory
    kept = math.exp(-max(now_s - memory.at_s, 0.0) / _MEMORY_S)
    blend = Blend(
        prompt=_added(old.prompt, prompt, kept),
        output=_added(old.output, output, kept),
        cached_prompt_share=old.cached_prompt_share if cached is None else cached,
    )
    if not shifted and now_s - memory.used_at_s < _USED_S and _alike(blend, memory.used):
        return replace(memory, blend=blend, at_s=now_s)
    return MixMemory(
        blend=blend,
        at_s=now_s,
        used=blend,
        used_at_s=now_s,
        shifted_at_s=now_s if shifted else memory.shifted_at_s,
    )


def mix_of(blend: Blend) -> Mix | None:
    prompt, output = points_of(blend.prompt), points_of(blend.output)
    if prompt is None or output is None:
        return None
    return Mix(prompt=prompt, output=output, cached_share=blend.cached_prompt_share)


def _alike(one: Blend, other: Blend) -> bool:
    return (
        abs(math.log(one.prompt.mean_tokens / other.prompt.mean_tokens)) < _MATTERS
        and abs(math.log(one.output.mean_tokens / other.output.mean_tokens)) < _MATTERS
        and abs(one.cached_prompt_share - other.cached_prompt_share) < _MATTERS
    )


def _sound(lengths: Lengths | None) -> Lengths | None:
    if lengths is None or not lengths.counts or len(lengths.counts) != len(lengths.upper_tokens):
        return None
    total = sum(lengths.counts)
    sound = math.isfinite(total) and total > 0 and min(lengths.counts) >= 0
    if not (sound and math.isfinite(lengths.mean_tokens) and lengths.mean_tokens > 0):
        return None
    *edges, last = lengths.upper_tokens
    if not math.isfinite(last):
        # Bounded from here on: JSON has no infinity.
        last = max(edges[-1] if edges else 1.0, 1.0) * UNBOUNDED_BUCKET
        lengths = Lengths(upper_tokens=(*edges, last), counts=lengths.counts, mean_tokens=lengths.mean_tokens)
    return lengths


def _shifted(old: Lengths, new: Lengths | None) -> bool:
    if new is None:
        return False
    if new.upper_tokens != old.upper_tokens:
        return True
    seen = sum(new.counts)
    noise = _SPREAD / math.sqrt(max(seen, 1.0))
    return abs(math.log(new.mean_tokens / old.mean_tokens)) > max(_SHIFT_SIGMAS * noise, _LEAST_SHIFT)


def _added(old: Lengths, new: Lengths | None, kept: float) -> Lengths:
    if new is None:
        return old
    if _shifted(old, new):
        return new
    if sum(old.counts) < _LEAST_REQUESTS:
        kept = 1.0
    counts = tuple(before * kept + now for before, now in zip(old.counts, new.counts, strict=True))
    before, now = sum(old.counts) * kept, sum(new.counts)
    mean = (old.mean_tokens * before + new.mean_tokens * now) / (before + now)
    return Lengths(upper_tokens=old.upper_tokens, counts=counts, mean_tokens=mean)
