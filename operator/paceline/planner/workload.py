"""Keeps the mix of lengths: a window's histogram is noisy, so windows are added up and forgotten slowly.

A mix that differs from the memory by more than its noise replaces it: a shift to long prompts must be seen in
one look, not in ten minutes. Where a window is too small for that, or was half of one mix and half of the other, three of
them together are held against what was before.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from typing import Final

from paceline.planner.mix import UNBOUNDED_BUCKET, Mix, points_of
from paceline.planner.observation import Lengths, Observation
from paceline.planner.state import Blend, LengthsMemory, MixMemory

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
_TOGETHER: Final = 3
"""Windows that are held against what was before them: of as many requests each, their noise is √3 times smaller than that
of one, and so is the shift that shows."""
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
        return MixMemory(
            prompt=LengthsMemory(older=prompt),
            output=LengthsMemory(older=output),
            cached_prompt_share=cached or 0.0,
            at_s=now_s,
            used=Blend(prompt=prompt, output=output, cached_prompt_share=cached or 0.0),
            used_at_s=now_s,
            shifted_at_s=now_s,
        )
    shifted = _differs(memory.prompt, prompt) or _differs(memory.output, output)
    if now_s - memory.at_s < _REFRESH_S and not shifted:
        return memory
    kept = math.exp(-max(now_s - memory.at_s, 0.0) / _MEMORY_S)
    prompts, prompts_shifted = _with(memory.prompt, prompt, kept)
    outputs, outputs_shifted = _with(memory.output, output, kept)
    shifted = prompts_shifted or outputs_shifted
    share = memory.cached_prompt_share if cached is None else cached
    blend = Blend(prompt=_all(prompts), output=_all(outputs), cached_prompt_share=share)
    used, used_at_s = memory.used, memory.used_at_s
    if shifted or now_s - used_at_s >= _USED_S or not _alike(blend, used):
        used, used_at_s = blend, now_s
    return MixMemory(
        prompt=prompts,
        output=outputs,
        cached_prompt_share=share,
        at_s=now_s,
        used=used,
        used_at_s=used_at_s,
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


def _with(memory: LengthsMemory, new: Lengths | None, kept: float) -> tuple[LengthsMemory, bool]:
    """The memory with a window more, and whether this is another mix than before."""
    if new is None:
        return memory, False
    if _differs(memory, new):
        return LengthsMemory(older=new), True
    *lately, last = (*memory.lately, new)
    if len(lately) < _TOGETHER - 1:
        return replace(memory, lately=(*lately, last)), False
    together = reduce(_sum, lately, last)
    if _shifted(memory.older, together):
        return LengthsMemory(older=together), True
    first, *others = lately
    if sum(memory.older.counts) < _LEAST_REQUESTS:
        kept = 1.0
    return LengthsMemory(older=_sum(memory.older, first, kept=kept), lately=(*others, last)), False


def _differs(memory: LengthsMemory, new: Lengths | None) -> bool:
    """Whether this window alone says so."""
    return new is not None and _shifted(_all(memory), new)


def _shifted(old: Lengths, new: Lengths) -> bool:
    if new.upper_tokens != old.upper_tokens:
        return True
    seen = sum(new.counts)
    noise = _SPREAD / math.sqrt(max(seen, 1.0))
    return abs(math.log(new.mean_tokens / old.mean_tokens)) > max(_SHIFT_SIGMAS * noise, _LEAST_SHIFT)


def _all(memory: LengthsMemory) -> Lengths:
    return reduce(_sum, memory.lately, memory.older)


def _sum(one: Lengths, other: Lengths, *, kept: float = 1.0) -> Lengths:
    """Of two histograms with the same edges; `kept` is left of the first."""
    counts = tuple(mine * kept + theirs for mine, theirs in zip(one.counts, other.counts, strict=True))
    mine, theirs = sum(one.counts) * kept, sum(other.counts)
    mean = (one.mean_tokens * mine + other.mean_tokens * theirs) / (mine + theirs)
    return Lengths(upper_tokens=one.upper_tokens, counts=counts, mean_tokens=mean)
