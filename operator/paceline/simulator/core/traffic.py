"""Requests with their lengths: what a simulation replays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Lengths that occur together, to be drawn from."""

    prompt_tokens: Ints
    output_tokens: Ints

    def draw(self, n: int, random: np.random.Generator) -> tuple[Ints, Ints]:
        picked = random.integers(0, len(self.prompt_tokens), size=n)
        return self.prompt_tokens[picked], self.output_tokens[picked]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """One entry a request, by arrival."""

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    end_s: float
    """The run's length: later than the last arrival."""
    drawn_from: Pairs | None = None
    """The mix that every length was drawn from, if there was one: two such traffics are alike but for chance."""

    def __len__(self) -> int:
        return len(self.arrival_s)

    def between(self, from_s: float, until_s: float) -> Traffic:
        """A part, with its own zero."""
        keep = (self.arrival_s >= from_s) & (self.arrival_s < until_s)
        return replace(
            self,
            arrival_s=self.arrival_s[keep] - from_s,
            prompt_tokens=self.prompt_tokens[keep],
            output_tokens=self.output_tokens[keep],
            end_s=min(until_s, self.end_s) - from_s,
        )

    def thinned(self, share: float, *, seed: int) -> Traffic:
        """Each request stays with this chance: the shape of the load is kept, and time is not stretched."""
        keep = np.random.default_rng(seed).random(len(self)) < share
        return replace(
            self,
            arrival_s=self.arrival_s[keep],
            prompt_tokens=self.prompt_tokens[keep],
            output_tokens=self.output_tokens[keep],
        )

    def multiplied(self, times: float, *, seed: int) -> Traffic:
        """More of the same: copies shifted in time, round the end to the beginning, the last one thinned."""
        random = np.random.default_rng(seed)
        whole = int(times)
        parts = [self]
        for _ in range(1, whole):
            parts.append(self._shifted(float(random.uniform(0, self.end_s))))
        if times > whole:
            rest = self._shifted(float(random.uniform(0, self.end_s)))
            parts.append(rest.thinned(times - whole, seed=seed + 1))
        arrival_s = np.concatenate([part.arrival_s for part in parts])
        order = np.argsort(arrival_s, kind="stable")
        return replace(
            self,
            arrival_s=arrival_s[order],
            prompt_tokens=np.concatenate([part.prompt_tokens for part in parts])[order],
            output_tokens=np.concatenate([part.output_tokens for part in parts])[order],
        )

    def _shifted(self, by_s: float) -> Traffic:
        return replace(self, arrival_s=(self.arrival_s + by_s) % self.end_s)
