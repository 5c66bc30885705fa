"""Traffic made up: for anyone without a trace, and for the scenarios that no trace holds.

Rates are drawn as a line over time and arrivals from it by thinning; lengths are drawn pair by pair from a mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from paceline.simulator.core.traffic import Floats, Pairs, Traffic

LONGEST_PROMPT = 32_000
LONGEST_OUTPUT = 2_000


def conversation(*, long_share: float = 0.0, seed: int = 0, n: int = 20_000) -> Pairs:
    """Short chats with a tail; `long_share` of the prompts are documents of 6,000 to 16,000 tokens."""
    random = np.random.default_rng(seed)
    prompt = np.exp(random.normal(6.3, 1.1, size=n))
    output = np.exp(random.normal(5.0, 0.8, size=n))
    long = random.random(n) < long_share
    prompt = np.where(long, random.uniform(6000, 16000, size=n), np.minimum(prompt, 4000))
    return Pairs(
        prompt_tokens=np.clip(prompt, 8, LONGEST_PROMPT).astype(np.int64),
        output_tokens=np.clip(output, 1, LONGEST_OUTPUT).astype(np.int64),
    )


def arrivals(at_s: Floats, rate: Floats, lengths: Pairs, *, seed: int) -> Traffic:
    """Poisson with the rate as a line through the points; the run ends at the last point."""
    random = np.random.default_rng(seed)
    begin, end = float(at_s[0]), float(at_s[-1])
    highest = float(rate.max())
    if highest <= 0:
        nothing = np.zeros(0, dtype=np.int64)
        return Traffic(arrival_s=np.zeros(0), prompt_tokens=nothing, output_tokens=nothing, end_s=end - begin)
    drawn = begin + np.cumsum(random.exponential(1 / highest, size=_enough(highest * (end - begin))))
    drawn = drawn[drawn < end]
    kept = drawn[random.random(len(drawn)) * highest < np.interp(drawn, at_s, rate)]
    prompt, output = lengths.draw(len(kept), random)
    return Traffic(
        arrival_s=kept - begin,
        prompt_tokens=prompt,
        output_tokens=output,
        end_s=end - begin,
        drawn_from=lengths,
    )


def _enough(mean: float) -> int:
    return int(mean + 8 * mean**0.5 + 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """One scenario: what its numbers mean and what they are if nobody says."""

    defaults: Mapping[str, float]
    rate: Callable[[Mapping[str, float], np.random.Generator], tuple[Floats, Floats]]


def _line(*points: tuple[float, float]) -> tuple[Floats, Floats]:
    return np.array([at for at, _ in points], dtype=float), np.array(
        [rate for _, rate in points], dtype=float
    )


def _steady(p: Mapping[str, float], _: np.random.Generator) -> tuple[Floats, Floats]:
    return _line((0, p["rate"]), (p["hours"] * 3600, p["rate"]))


def _steps(p: Mapping[str, float], _: np.random.Generator) -> tuple[Floats, Floats]:
    """Up and down between two rates, `steps` of equal length."""
    span_s = p["hours"] * 3600 / p["steps"]
    points: list[tuple[float, float]] = []
    for i in range(int(p["steps"])):
        rate = p["low"] if i % 2 == 0 else p["high"]
        points += [(i * span_s, rate), ((i + 1) * span_s - 1.0, rate)]
    return _line(*points, (p["hours"] * 3600, points[-1][1]))


def _ramp(p: Mapping[str, float], _: np.random.Generator) -> tuple[Floats, Floats]:
    end_s = p["hours"] * 3600
    return _line((0, p["low"]), (end_s * 0.3, p["low"]), (end_s * 0.6, p["high"]), (end_s, p["high"]))


def _diurnal(p: Mapping[str, float], random: np.random.Generator) -> tuple[Floats, Floats]:
    """A day's wave from the trough, with minute-to-minute noise as in real services."""
    minutes = np.arange(int(p["hours"] * 60) + 1, dtype=float)
    wave = (1 - np.cos(2 * np.pi * minutes / (p["period_hours"] * 60))) / 2
    rate = p["low"] + (p["high"] - p["low"]) * wave
    return minutes * 60.0, np.maximum(rate * (1 + random.normal(0, p["noise"], size=len(rate))), 0.0)


def _burst(p: Mapping[str, float], _: np.random.Generator) -> tuple[Floats, Floats]:
    """`times` the rate within a minute, for 15 minutes, once an hour."""
    points = [(0.0, p["rate"])]
    for hour in range(int(p["hours"])):
        at = hour * 3600 + 1500.0
        points += [(at, p["rate"]), (at + 60, p["times"] * p["rate"]), (at + 960, p["times"] * p["rate"]),
                   (at + 1020, p["rate"])]  # fmt: skip
    return _line(*points, (p["hours"] * 3600, p["rate"]))


def _flash_drop(p: Mapping[str, float], _: np.random.Generator) -> tuple[Floats, Floats]:
    """Nearly nothing for ten minutes, then all at once again."""
    end_s = p["hours"] * 3600
    at = end_s / 2
    return _line((0, p["rate"]), (at, p["rate"]), (at + 10, p["rate"] * 0.05), (at + 610, p["rate"] * 0.05),
                 (at + 620, p["rate"]), (end_s, p["rate"]))  # fmt: skip


GENERATORS: Mapping[str, Generator] = {
    "steady": Generator(defaults={"rate": 4.0, "hours": 3.0}, rate=_steady),
    "steps": Generator(defaults={"low": 2.0, "high": 6.0, "hours": 4.0, "steps": 8.0}, rate=_steps),
    "ramp": Generator(defaults={"low": 2.0, "high": 6.0, "hours": 3.0}, rate=_ramp),
    "diurnal": Generator(
        defaults={"low": 1.0, "high": 8.0, "hours": 24.0, "period_hours": 24.0, "noise": 0.05}, rate=_diurnal
    ),
    "burst": Generator(defaults={"rate": 2.0, "times": 3.0, "hours": 4.0}, rate=_burst),
    "mix-shift": Generator(
        defaults={"rate": 4.0, "hours": 6.0, "long_share": 0.2, "phases": 4.0}, rate=_steady
    ),
    "flash-drop": Generator(defaults={"rate": 4.0, "hours": 3.0}, rate=_flash_drop),
}


class UnknownSetting(ValueError):
    """A generator has no such number."""


def generate(
    name: str,
    settings: Mapping[str, float],
    *,
    seed: int,
    lengths: Pairs | None = None,
    scale: float = 1.0,
) -> Traffic:
    """`lengths`: instead of the generator's own mix. `scale`: of the rate."""
    generator = GENERATORS[name]
    unknown = set(settings) - set(generator.defaults)
    if unknown:
        raise UnknownSetting(
            f"{name} has no {', '.join(sorted(unknown))}: write some of {', '.join(generator.defaults)}"
        )
    p = {**generator.defaults, **settings}
    at_s, rate = generator.rate(p, np.random.default_rng(seed + 1))
    rate = rate * scale
    if name != "mix-shift":
        return arrivals(at_s, rate, lengths or conversation(), seed=seed)
    short = arrivals(at_s, rate, lengths or conversation(), seed=seed)
    return _with_long_phases(short, share=p["long_share"], phases=int(p["phases"]), seed=seed)


def _with_long_phases(traffic: Traffic, *, share: float, phases: int, seed: int) -> Traffic:
    """Every other phase `share` of the prompts is long; the first phase is not, and three quarters of the time
    are short."""
    period_s = traffic.end_s / phases
    in_long = (traffic.arrival_s % period_s) >= 0.75 * period_s
    random = np.random.default_rng(seed + 2)
    chosen = in_long & (random.random(len(traffic)) < share)
    long = random.integers(6000, 16000, size=len(traffic))
    return Traffic(
        arrival_s=traffic.arrival_s,
        prompt_tokens=np.where(chosen, long, traffic.prompt_tokens),
        output_tokens=traffic.output_tokens,
        end_s=traffic.end_s,
    )
