"""What an engine answers to texts that never change, and how fast: how a new one is held against those that served before.

An engine that was split wrongly, lost a shard or computes on a broken GPU answers fluently and wrongly: it starts, and
is fast. The log-probabilities that it gives to a fixed text tell. One on a GPU that is throttled, or with a kernel that
fits it badly, answers rightly and late: the time that a token takes where nobody else asks tells. The launcher measures
both before the pod is ready, the operator keeps those of the pods that serve as the reference for those that come. JSON
is the interface between the two:

    {"of": "…", "logProbabilities": [-3.2, …], "speed": {"tensorParallelSize": 1, "secondsPerToken": 0.021}}

and for the reference the same with

    "expectedSecondsPerToken": {"1": 0.021, "2": 0.013}, "latencyMarginPercent": 50

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
class Speed:
    tensor_parallel_size: int
    token_s: float
    """Seconds for each token of one request, while the engine has no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    of: str
    """Model, revision and formats; only canaries of the same can be compared."""

    log_probabilities: tuple[float, ...]
    """Nats, of each token of `TEXTS` given those before it, one text after the other."""

    speed: Speed | None = None
    """None: not known, and not compared."""

    def to_json(self) -> dict[str, Any]:
        speed = self.speed and {
            "tensorParallelSize": self.speed.tensor_parallel_size,
            "secondsPerToken": self.speed.token_s,
        }
        return {"of": self.of, "logProbabilities": list(self.log_probabilities), "speed": speed}

    @classmethod
    def from_json(cls, body: Any) -> Canary:
        """Raises CanaryError."""
        if not isinstance(body, Mapping):
            raise CanaryError(f"{body!r} is no canary")
        of, numbers = body.get("of"), body.get("logProbabilities")
        if not isinstance(of, str) or not isinstance(numbers, list):
            raise CanaryError('write {"of": "…", "logProbabilities": [-3.2, …]}')
        return cls(of=of, log_probabilities=tuple(map(_number, numbers)), speed=_speed(body.get("speed")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What an engine that comes is held against."""

    canary: Canary
    expected_token_s: Mapping[int, float]
    """By tensor-parallel size; of one that is not in it nothing is known, and its speed is not compared."""

    margin: float
    """How much longer it may take, as a share of what is expected."""

    def objection_to(self, other: Canary) -> str | None:
        """As a person reads it. None: it may serve, or the two cannot be compared."""
        if other.of != self.canary.of:
            return None
        return self._differs(other) or self._is_slow(other)

    def _differs(self, other: Canary) -> str | None:
        mine, theirs = other.log_probabilities, self.canary.log_probabilities
        if len(mine) != len(theirs) or not mine:
            return None
        difference = math.fsum(abs(a - b) for a, b in zip(mine, theirs, strict=True)) / len(mine)
        # A NaN is no answer either.
        if difference <= MOST_DIFFERENCE:
            return None
        return (
            f"this engine answers otherwise than those that served before it: log-probabilities of {len(mine)} tokens "
            f"differ by {difference:.2f} nats in the mean ({MOST_DIFFERENCE} allowed)"
        )

    def _is_slow(self, other: Canary) -> str | None:
        if other.speed is None:
            return None
        size, takes_s = other.speed.tensor_parallel_size, other.speed.token_s
        expected_s = self.expected_token_s.get(size)
        if expected_s is None or takes_s <= expected_s * (1 + self.margin):
            return None
        return (
            f"this engine is slower than those that served before it let expect: a token of one request alone takes "
            f"{1000 * takes_s:.1f} ms at tensor-parallel size {size}, and {1000 * expected_s:.1f} ms are expected "
            f"({100 * self.margin:.0f} % more allowed)"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            **self.canary.to_json(),
            "expectedSecondsPerToken": {str(size): each for size, each in self.expected_token_s.items()},
            "latencyMarginPercent": round(100 * self.margin),
        }

    @classmethod
    def parse(cls, text: str | bytes) -> Reference:
        """Raises CanaryError."""
        try:
            body = json.loads(text)
            canary = Canary.from_json(body)
            expected_s = body.get("expectedSecondsPerToken")
            if not isinstance(expected_s, Mapping):
                raise CanaryError('expectedSecondsPerToken: write {"1": 0.021}')
            return cls(
                canary=canary,
                expected_token_s={int(size): _number(each) for size, each in expected_s.items()},
                margin=_number(body.get("latencyMarginPercent")) / 100,
            )
        except ValueError as error:
            raise CanaryError(str(error)) from error


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CanaryError(f"{value!r} is no number")
    return float(value)


def _speed(body: Any) -> Speed | None:
    if body is None:
        return None
    size = body.get("tensorParallelSize") if isinstance(body, Mapping) else None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise CanaryError('speed: write {"tensorParallelSize": 1, "secondsPerToken": 0.021}')
    return Speed(tensor_parallel_size=size, token_s=_number(body.get("secondsPerToken")))
