"""When requests are sent: a schedule that is fixed before the first one leaves.

A client that waits for answers slows down when the service does, and so hides what users would see. Pure: the
seed is an argument.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

Process = Literal["poisson", "constant"]


def arrivals_s(*, rate_per_s: float, process: Process, seed: int) -> Iterator[float]:
    """Seconds after the start at which requests are sent, without end, the first one at the first gap."""
    if rate_per_s <= 0:
        raise ValueError(f"rate_per_s is {rate_per_s}: give a number above 0")
    gaps = random.Random(seed)
    at_s = 0.0
    while True:
        at_s += gaps.expovariate(rate_per_s) if process == "poisson" else 1 / rate_per_s
        yield at_s
