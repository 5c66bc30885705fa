"""The request rate one look-ahead from now, with how far it may be wrong. Called once a look.

Several simple experts, because no one of them is right for a quiet service, a ramp and a day's curve alike:
smoothed rates, smoothed rates with their trend, and yesterday's curve from here on. Each look compares what
they said one look-ahead ago with what came, and the one with the least error speaks. Its errors are the
uncertainty that capacity is made for. Yesterday's curve may only raise the answer, and only while the errors
of the last day are smaller with it than without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from paceline.planner.jumps import ExpectedJump, counted, expected_jump, is_jump, with_jump
from paceline.planner.state import ForecastMemory, JumpMemory, PastForecast, Smoothed

_TIME_CONSTANTS_S: Final = (60.0, 180.0, 600.0)
_TREND_REACH: Final = 1.5
"""A trend is followed for at most this many of its time constants: none goes on for ever."""
_ERROR_MEMORY: Final = 480.0
"""Errors that a mean rests on at most: two hours of looks 15 s apart."""
_PRIOR_ERRORS: Final = 20.0
_PRIOR_SQUARE: Final = 0.15**2
"""Before anything was compared: 15 %, as minute-to-minute changes of chat traffic are."""
_SLOTS: Final = 96
"""Of a day: 15 minutes each."""
_DAY_S: Final = 86400.0
_PROFILE_DAY_WEIGHT: Final = 0.5
_SEASON_MOST: Final = 4.0
"""Yesterday's curve may say at most this multiple of the present rate."""
_LEAST_SPACING_S: Final = 10.0
"""Looks closer than this share one forecast to compare."""
_RISE_SIGMAS: Final = 3.0
"""Of the noise of counting: what a single look must exceed to count as a sudden rise."""
_RISE_REACH: Final = 0.5
"""Share of the look-ahead over which a sudden rise is taken to go on."""
_RISE_MOST: Final = 4.0
"""A sudden rise is carried on to at most this multiple of the rate counted: a quarter of a window is enough to see
all of a jump, and looks that are closer than scrapes find the whole of a scrape's rise in one of them."""
_ERROR_MOST: Final = 1.0
"""One error counts for at most so much, in the logarithm (a factor of 2.7): errors are taken as normal there, and a
single jump of eight times would have a service expect thirty times its traffic for hours."""
_SEASON_GAIN: Final = 0.95
"""Over the last day, errors with yesterday's curve must have been smaller by this factor for it to speak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    now_per_s: float
    """The rate now, smoothed as the best expert would."""
    ahead_per_s: float
    """The rate one look-ahead from now."""
    sigma: float
    """Of the logarithm of the rate that comes over the rate that was said, upward side."""
    seasonal: bool
    """Yesterday's curve raised it."""
    errors: float
    """How many comparisons stand behind `sigma`."""
    jump: ExpectedJump | None
    """That may come within the look-ahead; None: none is expected."""


def forecast(
    memory: ForecastMemory | None, *, now_s: float, rate: float, window_s: float, look_ahead_s: float
) -> tuple[Forecast, ForecastMemory]:
    """`rate` was counted over `window_s` up to now."""
    rate = float(rate)
    if memory is None or now_s < memory.at_s or now_s - memory.at_s > 4 * _TIME_CONSTANTS_S[-1]:
        memory = _fresh(now_s, rate, memory)
    # Who speaks, and how far to trust it, was settled before this rate came: so more traffic never asks for less.
    squares, under_squares = memory.squares, memory.under_squares
    profile = _rolled(memory, now_s).profile
    old_rate, passed_s = memory.rate, now_s - memory.at_s
    helps = _season_helps(memory)
    jump = expected_jump(memory.jumps, now_s=now_s, look_ahead_s=look_ahead_s)
    memory = _smoothed(_scored(memory, now_s=now_s, rate=rate, window_s=window_s), now_s=now_s, rate=rate)
    reach_s = look_ahead_s + window_s / 2
    experts = _experts(memory.smoothed, reach_s=reach_s)
    plain = len(experts)
    best = _best(squares)
    ahead = without = experts[best]
    now = _experts(memory.smoothed, reach_s=window_s / 2)[best]
    curve = now * _season(profile, now_s=now_s, reach_s=look_ahead_s)
    seasonal = helps and curve > ahead
    if seasonal:
        ahead = curve
    # A rise that no smoothed rate has seen yet.
    surely = rate - _RISE_SIGMAS * math.sqrt(max(rate, 0.0) / window_s)
    rise = _sure_rise(old_rate, rate, passed_s=passed_s, window_s=window_s)
    most = _RISE_MOST * rate
    # Before one forecast could be compared, a window that fills up looks like a rise.
    reach = _RISE_REACH if memory.weight > _PRIOR_ERRORS else 0.0
    ahead = max(ahead, min(surely + rise * (window_s / 2 + reach * look_ahead_s), most))
    now = max(now, min(surely + rise * window_s / 2, most))
    sigma = math.sqrt(max(2 * under_squares[plain if seasonal else best], 1e-6))
    if not memory.pending or now_s - memory.pending[-1].at_s >= _LEAST_SPACING_S:
        said = PastForecast(at_s=now_s, look_ahead_s=look_ahead_s, rates=(*experts, curve), plain=without)
        memory = replace(memory, pending=(*memory.pending, said))
    return (
        Forecast(
            now_per_s=now,
            ahead_per_s=ahead,
            sigma=sigma,
            seasonal=seasonal,
            errors=memory.weight,
            jump=jump,
        ),
        memory,
    )


def _best(squares: Sequence[float]) -> int:
    """The expert that speaks; the last one, yesterday's curve, only raises what it says."""
    return min(range(len(squares) - 1), key=lambda index: squares[index])


def _season_helps(memory: ForecastMemory) -> bool:
    return memory.raised_square < _SEASON_GAIN * memory.plain_square


def _fresh(now_s: float, rate: float, memory: ForecastMemory | None) -> ForecastMemory:
    count = 2 * len(_TIME_CONSTANTS_S) + 1
    return ForecastMemory(
        at_s=now_s,
        smoothed=tuple(Smoothed(once=rate, twice=rate) for _ in _TIME_CONSTANTS_S),
        squares=(_PRIOR_SQUARE,) * count,
        under_squares=(_PRIOR_SQUARE / 2,) * count,
        weight=_PRIOR_ERRORS,
        plain_square=0.0,
        raised_square=0.0,
        pending=(),
        rate=rate,
        profile=(-1.0,) * _SLOTS if memory is None else memory.profile,
        today=(-1.0,) * _SLOTS if memory is None else memory.today,
        jumps=JumpMemory() if memory is None else memory.jumps,
    )


def _smoothed(memory: ForecastMemory, *, now_s: float, rate: float) -> ForecastMemory:
    passed = now_s - memory.at_s
    smoothed = []
    for old, constant_s in zip(memory.smoothed, _TIME_CONSTANTS_S, strict=True):
        share = -math.expm1(-passed / constant_s)
        once = old.once + share * (rate - old.once)
        smoothed.append(Smoothed(once=once, twice=old.twice + share * (once - old.twice)))
    memory = _rolled(memory, now_s)
    slot = int(now_s % _DAY_S / (_DAY_S / _SLOTS))
    today = list(memory.today)
    share = 1.0 if today[slot] < 0 else min(2 * passed * _SLOTS / _DAY_S, 1.0)
    today[slot] += share * (rate - today[slot])
    return replace(memory, at_s=now_s, rate=rate, smoothed=tuple(smoothed), today=tuple(today))


def _rolled(memory: ForecastMemory, now_s: float) -> ForecastMemory:
    """At midnight the day becomes part of the profile: what a day has taught counts from the next one on."""
    if now_s // _DAY_S == memory.at_s // _DAY_S:
        return memory
    profile = tuple(
        old if new < 0 else new if old < 0 else old + _PROFILE_DAY_WEIGHT * (new - old)
        for old, new in zip(memory.profile, memory.today, strict=True)
    )
    return replace(memory, profile=profile, today=(-1.0,) * _SLOTS)


def _sure_rise(old: float, new: float, *, passed_s: float, window_s: float) -> float:
    """Requests/s each second, as far as two looks prove: a window shows a jump only half by the time it has passed.

    Two windows that overlap differ by the arrivals that came in and those that fell out.
    """
    if not 0 < passed_s <= window_s:
        return 0.0
    noise = math.sqrt(2 * max(new, 0.0) * passed_s) / window_s
    return max(new - old - _RISE_SIGMAS * noise, 0.0) / passed_s


def _experts(smoothed: tuple[Smoothed, ...], *, reach_s: float) -> tuple[float, ...]:
    """Of each time constant: smoothed, and smoothed with its trend."""
    said = []
    for one, constant_s in zip(smoothed, _TIME_CONSTANTS_S, strict=True):
        level = 2 * one.once - one.twice
        trend = (one.once - one.twice) / constant_s
        said.append(max(one.once, 0.0))
        said.append(max(level + trend * min(reach_s, _TREND_REACH * constant_s), 0.0))
    return tuple(said)


def _season(profile: tuple[float, ...], *, now_s: float, reach_s: float) -> float:
    """By which factor the rate changed from this time of day on; 0 where no day was seen."""
    here, there = _of_day(profile, now_s), _of_day(profile, now_s + reach_s)
    return min(there / here, _SEASON_MOST) if here > 0 and there >= 0 else 0.0


def _of_day(profile: tuple[float, ...], at_s: float) -> float:
    """Between the middles of two slots; negative where no day was seen."""
    place = at_s % _DAY_S / (_DAY_S / _SLOTS) - 0.5
    left = math.floor(place)
    low, high = profile[left % _SLOTS], profile[(left + 1) % _SLOTS]
    return -1.0 if low < 0 or high < 0 else low + (high - low) * (place - left)


def _scored(memory: ForecastMemory, *, now_s: float, rate: float, window_s: float) -> ForecastMemory:
    """What was said about now against what came. The noise of counting is no error of the expert."""
    passed_s = max(now_s - memory.at_s, 0.0)
    share = -math.expm1(-passed_s / _DAY_S)
    plain_square, raised_square = memory.plain_square, memory.raised_square
    due = [one for one in memory.pending if one.at_s + one.look_ahead_s <= now_s]
    jumps = counted(memory.jumps, passed_s=passed_s, rate=rate)
    if not due:
        return replace(memory, jumps=jumps)
    squares, under, weight = list(memory.squares), list(memory.under_squares), memory.weight
    sigma, helps = math.sqrt(2 * under[_best(squares)]), _season_helps(memory)
    least = 1 / window_s
    counting = 1 / (max(rate, least) * window_s)
    for one in due:
        weight = min(weight + 1, _ERROR_MEMORY)
        raised = max(one.plain, one.rates[-1])
        plain_square += share * (_error(rate, one.plain, least, counting)[1] - plain_square)
        raised_square += share * (_error(rate, raised, least, counting)[1] - raised_square)
        said = raised if helps else one.plain
        jumped = is_jump(rate, said, window_s=window_s, sigma=sigma)
        for index, rate_said in enumerate(one.rates):
            error, square = _error(rate, rate_said, least, counting)
            squares[index] += (square - squares[index]) / weight
            if not jumped:
                under[index] += ((square if error > 0 else 0.0) - under[index]) / weight
    if jumped:
        jumps = with_jump(jumps, now_s=now_s, passed_s=passed_s, came=rate, said=said, window_s=window_s)
    return replace(
        memory,
        squares=tuple(squares),
        under_squares=tuple(under),
        weight=weight,
        plain_square=plain_square,
        raised_square=raised_square,
        pending=memory.pending[len(due) :],
        jumps=jumps,
    )


def _error(came: float, said: float, least: float, counting: float) -> tuple[float, float]:
    error = min(max(math.log((came + least) / (said + least)), -_ERROR_MOST), _ERROR_MOST)
    return error, max(error * error - counting, 0.0)


def extended(memory: ForecastMemory, *, now_s: float, look_ahead_s: float) -> Forecast:
    """What was known last, carried on while the rate is unknown. The uncertainty grows with the age."""
    age_s = max(now_s - memory.at_s, 0.0)
    reach_s = look_ahead_s + age_s
    best = _best(memory.squares)
    now = _experts(memory.smoothed, reach_s=age_s)[best]
    ahead = _experts(memory.smoothed, reach_s=reach_s)[best]
    sigma = math.sqrt(max(2 * memory.under_squares[best], 1e-6) * (1 + age_s / max(look_ahead_s, 1.0)))
    return Forecast(
        now_per_s=now,
        ahead_per_s=ahead,
        sigma=sigma,
        seasonal=False,
        errors=memory.weight,
        jump=expected_jump(memory.jumps, now_s=now_s, look_ahead_s=look_ahead_s),
    )
