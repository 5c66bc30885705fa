"""The traffic that is played: forty minutes of a recorded one, thinned and never stretched, with a shift of the mix
spliced into its middle.

Recorded traffic stays outside of this repository: who has a file names it, who has none plays a made-up conversation.
Pure but for the reading: file, recipe and seed give the same requests everywhere, which `fingerprint` shows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from e2e.load.replay import SHORTEST_PROMPT_TOKENS, Replay, Request
from paceline.simulator.core.generators import generate
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.traffic_files import REQUEST_COLUMNS, read_requests

MADE_UP: Final = "made-up"
"""The name of the source where no file is given."""

MOST_TOKENS_PER_S: Final = 2500.0
"""Streamed by all pods together, in the mean of a minute."""

MINUTE_S: Final = 60.0
TIMEOUT_S: Final = 120.0


class Unplayable(ValueError):
    """A traffic that cannot be made from this source. The message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A share of the requests has long prompts for a while."""

    from_s: float = 600.0
    until_s: float = 1200.0
    share: float = 0.25
    least_prompt_tokens: int = 6000
    most_prompt_tokens: int = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    seed: int = 1
    duration_s: float = 2400.0
    tokens_per_s: float = 300.0
    """Output tokens, in the mean of the whole."""
    shift: Shift = Shift()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the requests come from."""

    name: str
    traffic: Traffic

    @classmethod
    def of(cls, requests: Path | None) -> Source:
        """The file, named without its ending, or what is made up: arrivals that swing over half an hour."""
        if requests is not None:
            return cls(name=requests.stem, traffic=read_requests(requests))
        swing = {"low": 4.0, "high": 8.0, "hours": 1.0, "period_hours": 0.5, "noise": 0.1}
        return cls(name=MADE_UP, traffic=generate("diurnal", swing, seed=0))


def traffic_of(source: Source, recipe: Recipe) -> Traffic:
    """The beginning of the source, thinned, with the shift. Raises Unplayable."""
    there = source.traffic
    if there.end_s < recipe.duration_s:
        raise Unplayable(
            f"{source.name} is {there.end_s:.0f} s long and {recipe.duration_s:.0f} s are played: give a longer one"
        )
    part = there.between(0.0, recipe.duration_s)
    offered = streamed_per_s(part)
    if offered < recipe.tokens_per_s:
        raise Unplayable(
            f"{source.name} has {offered:.0f} output tokens a second and {recipe.tokens_per_s:.0f} are asked for: "
            "ask for fewer, traffic is only thinned"
        )
    thinned = part.thinned(recipe.tokens_per_s / offered, seed=recipe.seed)
    made = _with_shift(
        replace(
            thinned,
            # As a file of them says it: what is played is what is written.
            arrival_s=np.floor(thinned.arrival_s * 1000) / 1000,
            prompt_tokens=np.maximum(thinned.prompt_tokens, SHORTEST_PROMPT_TOKENS),
        ),
        recipe,
    )
    if (most := busiest_minute_per_s(made)) > MOST_TOKENS_PER_S:
        raise Unplayable(
            f"the busiest minute has {most:.0f} output tokens a second: ask for fewer, at most "
            f"{MOST_TOKENS_PER_S:.0f} are played"
        )
    return made


def _with_shift(traffic: Traffic, recipe: Recipe) -> Traffic:
    shift = recipe.shift
    random = np.random.default_rng(recipe.seed + 1)
    inside = (traffic.arrival_s >= shift.from_s) & (traffic.arrival_s < shift.until_s)
    chosen = inside & (random.random(len(traffic)) < shift.share)
    long = random.integers(shift.least_prompt_tokens, shift.most_prompt_tokens + 1, size=len(traffic))
    return replace(traffic, prompt_tokens=np.where(chosen, long, traffic.prompt_tokens))


def streamed_per_s(traffic: Traffic) -> float:
    return float(traffic.output_tokens.sum()) / traffic.end_s


def busiest_minute_per_s(traffic: Traffic) -> float:
    minutes = (traffic.arrival_s // MINUTE_S).astype(int)
    return float(np.bincount(minutes, weights=traffic.output_tokens).max(initial=0.0)) / MINUTE_S


def text_of(traffic: Traffic) -> str:
    """As a file of requests, which `paceline simulate --requests` reads."""
    columns = zip(traffic.arrival_s, traffic.prompt_tokens, traffic.output_tokens, strict=True)
    rows = (f"{at_s:.3f},{prompt},{output}\n" for at_s, prompt, output in columns)
    return ",".join(REQUEST_COLUMNS) + "\n" + "".join(rows)


def fingerprint(traffic: Traffic) -> str:
    return hashlib.sha256(text_of(traffic).encode()).hexdigest()[:16]


def replay_of(traffic: Traffic) -> Replay:
    columns = zip(traffic.arrival_s, traffic.prompt_tokens, traffic.output_tokens, strict=True)
    return Replay(
        requests=[
            Request(at_s=float(at_s), prompt_tokens=int(prompt), output_tokens=int(output))
            for at_s, prompt, output in columns
        ],
        timeout_s=TIMEOUT_S,
    )


def described(source: Source, traffic: Traffic, recipe: Recipe) -> str:
    """For people, the splice named."""
    shift = recipe.shift
    lines = [
        f"{source.name}, the first {traffic.end_s:.0f} s, thinned to {len(traffic)} requests (seed {recipe.seed}), "
        f"fingerprint {fingerprint(traffic)}",
        f"streamed: {streamed_per_s(traffic):.0f} tokens/s, {busiest_minute_per_s(traffic):.0f} in the busiest minute",
        f"spliced in: from second {shift.from_s:.0f} to {shift.until_s:.0f}, {shift.share:.0%} of the prompts have "
        f"{shift.least_prompt_tokens} to {shift.most_prompt_tokens} tokens",
    ]
    edges = (("before", 0.0, shift.from_s), ("meanwhile", shift.from_s, shift.until_s))
    for name, from_s, until_s in (*edges, ("after", shift.until_s, traffic.end_s)):
        part = traffic.between(from_s, until_s)
        if len(part):
            lines.append(
                f"{name:>10}: {len(part) / part.end_s:.2f} requests/s, prompts mean {part.prompt_tokens.mean():.0f}, "
                f"p99 {np.quantile(part.prompt_tokens, 0.99):.0f}, outputs mean {part.output_tokens.mean():.0f}"
            )
    return "\n".join(lines)
