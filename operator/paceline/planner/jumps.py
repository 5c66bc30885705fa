"""Rises that no forecast saw coming and that come back, such as those of a job at every full hour.

Called by `forecast` once a look. Among the everyday errors a jump of three times would widen all of them: too much for
every other hour, and too little for the next jump. So it is kept apart: which share of the requests came in jumps, how
many times more than was said, and up to which rate. One jump is a change of level. From the second one on the next is
expected: at any time, or where they come at regular intervals when its time has come; and capacity is kept for it where
its share of the requests is worth that.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

from paceline.planner.state import Jump, JumpMemory

_LEAST: Final = math.log(1.5)
"""In the logarithm of what came over what was said."""
_SIGMAS: Final = 3.0
"""Of the everyday errors: less is one of them."""
_COUNTING_SIGMAS: Final = 4.0
"""Of the noise of counting, likewise."""
_APART_S: Final = 600.0
"""A rise that is this close to the one before belongs to it."""
_MEMORY_S: Final = 86400.0
_KEPT: Final = 24
_SHARE_MOST: Final = 0.5
_INTERVALS: Final = 3
"""Alike, one after the other: then they are regular."""
_SLACK: Final = 0.03
"""Share of an interval by which the next one may differ…"""
_SLACK_S: Final = 60.0
"""…beside the time between two looks and within a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedJump:
    """The jump that may come within the look-ahead."""

    share: float
    """Of all requests: those that come in it."""
    ratio: float
    """What comes over what would come without it, at most."""
    level_per_s: float
    """It leads no higher."""

    def rate_per_s(self, without: float) -> float:
        return max(without, min(without * self.ratio, self.level_per_s))


def expected_jump(memory: JumpMemory, *, now_s: float, look_ahead_s: float) -> ExpectedJump | None:
    """None: none is expected within the look-ahead."""
    jumps = memory.jumps
    masses = [one.requests * math.exp(-max(now_s - one.until_s, 0.0) / _MEMORY_S) for one in jumps]
    mass = sum(masses)
    when = _when(jumps, now_s=now_s, look_ahead_s=look_ahead_s)
    if when == "later" or mass <= 0:
        return None
    weighted = [(mass_of / mass, one) for mass_of, one in zip(masses, jumps, strict=True)]
    return ExpectedJump(
        share=_SHARE_MOST if when == "now" else min(mass / max(memory.requests, mass), _SHARE_MOST),
        ratio=sum(share * one.ratio for share, one in weighted),
        level_per_s=sum(share * one.level_per_s for share, one in weighted),
    )


def _when(
    jumps: tuple[Jump, ...], *, now_s: float, look_ahead_s: float
) -> Literal["now", "any time", "later"]:
    if len(jumps) < 2:
        return "later"
    intervals = [after.since_s - before.since_s for before, after in pairwise(jumps[-_INTERVALS - 1 :])]
    usual = statistics.median(intervals)
    slack_s = _SLACK * usual + _SLACK_S
    if len(intervals) < _INTERVALS or any(abs(one - usual) > slack_s for one in intervals):
        return "any time"
    due_s = jumps[-1].since_s + usual
    if now_s + look_ahead_s < due_s - slack_s:
        return "later"
    return "now" if now_s < due_s + slack_s else "any time"


def is_jump(came: float, said: float, *, window_s: float, sigma: float) -> bool:
    """More came than everyday errors and the noise of counting explain."""
    if came <= said + _COUNTING_SIGMAS * math.sqrt(max(came, said) / window_s):
        return False
    return math.log(_ratio(came, said, window_s=window_s)) > max(_LEAST, _SIGMAS * sigma)


def _ratio(came: float, said: float, *, window_s: float) -> float:
    """Nothing said counts as one request a window."""
    return came / max(said, 1 / window_s)


def counted(memory: JumpMemory, *, passed_s: float, rate: float) -> JumpMemory:
    """With the requests since the last look."""
    requests = memory.requests * math.exp(-passed_s / _MEMORY_S) + rate * passed_s
    return replace(memory, requests=requests)


def with_jump(
    memory: JumpMemory, *, now_s: float, passed_s: float, came: float, said: float, window_s: float
) -> JumpMemory:
    """With the requests since the last look as part of a jump."""
    ratio, requests = _ratio(came, said, window_s=window_s), came * passed_s
    last = memory.jumps[-1] if memory.jumps else None
    if last is None or now_s - last.until_s > _APART_S:
        new = Jump(since_s=now_s, until_s=now_s, ratio=ratio, level_per_s=came, requests=requests)
        return replace(memory, jumps=(*memory.jumps, new)[-_KEPT:])
    grown = replace(
        last,
        until_s=now_s,
        ratio=max(last.ratio, ratio),
        level_per_s=max(last.level_per_s, came),
        requests=last.requests + requests,
    )
    return replace(memory, jumps=(*memory.jumps[:-1], grown))
