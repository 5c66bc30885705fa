"""What an engine answers to texts that never change: how a new one is held against those that served before it.

An engine that was split wrongly, lost a shard or computes on a broken GPU answers fluently and wrongly: it starts, and
is fast. The log-probabilities that it gives to a fixed text tell. The launcher measures them before the pod is ready, the
operator keeps those of the pods that serve as the reference for those that come. JSON is the interface between the two:

    {"of": "…", "logProbabilities": [-3.2, …]}

Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

TEXTS: Final = (
    "The three primary colours of light are red, green and blue, and where all of them meet there is white.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))\n# 12\n",
    "1, 2, 4, 8, 16, 32, 64, 128, 256, 512",
)
"""English, code and numbers. With other texts, `EDITION` is another."""

EDITION: Final = 1

MOST_DIFFERENCE: Final = 0.25
"""Nats, mean over the tokens of the absolute difference. Sizes, kernels and batches change the order of sums, which is
a matter of hundredths; an engine that computes something else is off by whole nats."""


class CanaryError(ValueError):
    """The text is no canary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    of: str
    """Model, revision and formats; only canaries of the same can be compared."""

    log_probabilities: tuple[float, ...]
    """Nats, of each token of `TEXTS` given those before it, one text after the other."""

    def differs_from(self, reference: Canary) -> str | None:
        """In what, as a person reads it. None: the answers are the same, or they cannot be compared."""
        mine, theirs = self.log_probabilities, reference.log_probabilities
        if self.of != reference.of or len(mine) != len(theirs) or not mine:
            return None
        difference = math.fsum(abs(a - b) for a, b in zip(mine, theirs, strict=True)) / len(mine)
        # A NaN is no answer either.
        if difference <= MOST_DIFFERENCE:
            return None
        return (
            f"this engine answers otherwise than those that served before it: log-probabilities of {len(mine)} tokens "
            f"differ by {difference:.2f} nats in the mean ({MOST_DIFFERENCE} allowed)"
        )

    def to_json(self) -> dict[str, Any]:
        return {"of": self.of, "logProbabilities": list(self.log_probabilities)}

    @classmethod
    def from_json(cls, body: Any) -> Canary:
        """Raises CanaryError."""
        if not isinstance(body, Mapping):
            raise CanaryError(f"{body!r} is no canary")
        of, numbers = body.get("of"), body.get("logProbabilities")
        if not isinstance(of, str) or not isinstance(numbers, list):
            raise CanaryError('write {"of": "…", "logProbabilities": [-3.2, …]}')
        if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers):
            raise CanaryError("logProbabilities are numbers")
        return cls(of=of, log_probabilities=tuple(float(one) for one in numbers))

    @classmethod
    def parse(cls, text: str | bytes) -> Canary:
        """Raises CanaryError."""
        try:
            return cls.from_json(json.loads(text))
        except ValueError as error:
            raise CanaryError(str(error)) from error
