"""Requests with their lengths: what a simulation replays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """One entry a request, by arrival."""

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    end_s: float
    """The run's length: later than the last arrival."""

    def __len__(self) -> int:
        return len(self.arrival_s)

    def between(self, from_s: float, until_s: float) -> Traffic:
        """A part, with its own zero."""
        keep = (self.arrival_s >= from_s) & (self.arrival_s < until_s)
        return Traffic(
            arrival_s=self.arrival_s[keep] - from_s,
            prompt_tokens=self.prompt_tokens[keep],
            output_tokens=self.output_tokens[keep],
            end_s=min(until_s, self.end_s) - from_s,
        )

    def thinned(self, share: float, *, seed: int) -> Traffic:
        """Each request stays with this chance: the shape of the load is kept, and time is not stretched."""
        keep = np.random.default_rng(seed).random(len(self)) < share
        return Traffic(
            arrival_s=self.arrival_s[keep],
            prompt_tokens=self.prompt_tokens[keep],
            output_tokens=self.output_tokens[keep],
            end_s=self.end_s,
        )
