"""Values that a person writes on a command line or in a suite file: durations, targets, lists of sizes.

Each message names the option and says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from paceline_core.latency import LatencyTarget, Targets

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")

POSSIBLE_SIZES: Final = (1, 2, 4, 8)

SLO_KEYS: Final = ("ttft", "tpot", "objective")


class WrittenWrong(ValueError):
    """What was written cannot be meant. `option` is its name, the message says what to write."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option = option


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    targets: Targets
    objective: float
    """0 to 1."""


def parse_duration_s(text: str, *, option: str) -> float:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise WrittenWrong(option, f"{text!r} is no duration: write a number and ms, s, m or h, such as 120s")
    return float(found[1]) * _UNITS_S[found[2]]


def parse_sizes(text: str, *, option: str) -> tuple[int, ...]:
    """`1,2,4,8`"""
    sizes = set()
    for part in text.split(","):
        if part.strip() not in {str(size) for size in POSSIBLE_SIZES}:
            raise WrittenWrong(
                option, f"{part.strip()!r} is no tensor-parallel size: write some of 1,2,4,8, such as 2,4"
            )
        sizes.add(int(part))
    return tuple(sorted(sizes))


def parse_slo(text: str, *, option: str) -> Slo:
    """`ttft=1s,tpot=50ms,objective=99`"""
    written: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or key not in SLO_KEYS or key in written:
            raise WrittenWrong(
                option, f"{part.strip()!r} is not understood: write ttft=1s,tpot=50ms,objective=99"
            )
        written[key] = value
    missing = [key for key in SLO_KEYS if key not in written]
    if missing:
        raise WrittenWrong(option, f"{' and '.join(missing)} missing: write ttft=1s,tpot=50ms,objective=99")
    return Slo(
        targets=Targets(
            classes=(
                LatencyTarget(
                    name="all",
                    max_prompt_tokens=None,
                    ttft_ms=_whole_ms(written["ttft"], option=option),
                    ttft_per_thousand_prompt_tokens_ms=0,
                    tpot_ms=_whole_ms(written["tpot"], option=option),
                ),
            )
        ),
        objective=_objective(written["objective"], option=option),
    )


def _whole_ms(text: str, *, option: str) -> int:
    duration_ms = parse_duration_s(text, option=option) * 1000
    if duration_ms < 1 or abs(duration_ms - round(duration_ms)) > 1e-6:
        raise WrittenWrong(option, f"{text!r}: write whole milliseconds, at least 1ms")
    return round(duration_ms)


def _objective(text: str, *, option: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 < percent < 100:
        raise WrittenWrong(
            option, f"objective={text}: write percent of requests above 0 and below 100, such as 99"
        )
    return percent / 100


def parse_scenario(text: str, *, option: str, known: Sequence[str]) -> tuple[str, dict[str, float]]:
    """`burst:rate=4,hours=2`"""
    name, _, rest = text.partition(":")
    if name not in known:
        raise WrittenWrong(option, f"{name!r} is no generator: write one of {', '.join(sorted(known))}")
    settings = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        try:
            settings[key.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise WrittenWrong(option, f"{part!r}: write key=number, such as {name}:hours=2")
    return name, settings
