"""Whether the figures of one look may lower anything, and what is wrong with them.

A figure that is missing, stale or contradicted never lowers a shape; it may hold it, and the rest may still
raise it. Figures that cannot all be true are named, for a person to see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paceline.planner.mix import Mix
from paceline.planner.observation import Figure, Observation

_RATIO: Final = 3.0
"""Tokens that engines computed against those that the requests asked for: windows, queues and long answers
explain a factor of two."""
_LEAST_REQUESTS: Final = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    problems: tuple[str, ...]
    """Contradictions, as a person reads them."""
    unknown: tuple[str, ...]
    """Figures that are not there to lower anything by."""

    @property
    def may_lower(self) -> bool:
        return not self.problems and not self.unknown

    @property
    def factor(self) -> float:
        """What is left of the confidence."""
        return 0.5 ** len(self.problems) * (0.8 if self.unknown else 1.0)


def assess(observation: Observation, *, mix: Mix | None, settled: bool) -> Assessment:
    """`settled`: the rate has been steady, so that what comes in and what goes out can be compared."""
    return Assessment(
        problems=tuple(_problems(observation, mix=mix, settled=settled)),
        unknown=tuple(_unknown(observation)),
    )


def _unknown(observation: Observation) -> Iterator[str]:
    if not _known(observation.traffic.requests_per_s):
        yield "the request rate"
    for group in observation.groups:
        if group.ready == 0:
            continue
        for figure, name in ((group.running, "running"), (group.waiting, "waiting")):
            if figure.trust not in ("Fresh", "Missing") or (figure.trust == "Fresh" and not _known(figure)):
                yield f"the {name} requests at TP{group.tensor_parallel_size}"
    if observation.attainment.trust in ("Stale", "Contradicted"):
        yield "the attainment"


def _problems(observation: Observation, *, mix: Mix | None, settled: bool) -> Iterator[str]:
    good = observation.attainment.fresh
    if good is not None and not 0 <= good <= 1:
        yield f"an attainment of {good:g} is outside 0 to 1"
    rate = observation.traffic.requests_per_s
    if rate.trust == "Contradicted":
        yield "two sources disagree about the request rate"
    for group in observation.groups:
        usage = group.kv_cache_usage.fresh
        if usage is not None and not 0 <= usage <= 1.001:
            yield f"a KV cache use of {usage:g} at TP{group.tensor_parallel_size} is outside 0 to 1"
    if mix is None or not settled or not _known(rate) or rate.value is None:
        return
    asked = rate.value * max(mix.decode_steps, 1.0)
    tokens = [one.decode_tokens_per_s.fresh for one in observation.groups if one.ready]
    known = [one for one in tokens if one is not None and math.isfinite(one)]
    if not known or len(known) < len(tokens):
        return
    made = sum(known)
    if rate.value * observation.traffic.window_s >= _LEAST_REQUESTS and made < asked / _RATIO:
        yield f"requests ask for {asked:.0f} tokens/s but engines make {made:.0f}"
    elif made * observation.traffic.window_s >= _LEAST_REQUESTS * max(mix.decode_steps, 1.0) and (
        made > asked * _RATIO
    ):
        yield f"engines make {made:.0f} tokens/s but requests ask for {asked:.0f}"


def _known(figure: Figure) -> bool:
    value = figure.fresh
    return value is not None and math.isfinite(value) and value >= 0
