"""Whether emulated engines kept the time that their tables say: how late their steps ended, from their metrics.

Called by the replay and by `benchmarks/emulator_pace.py`. Where it is much, the machine was too busy for what its engines
pretend, and what was measured on it shows nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Final

_BUCKET: Final = re.compile(
    r'^paceline_emulated_step_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE
)


class StepLag:
    """All steps of all engines that were heard, those that are gone included."""

    def __init__(self) -> None:
        self._by_engine: dict[str, dict[float, int]] = {}

    def hear(self, engine: str, page: str) -> None:
        """The engine's metrics. They count from its start on: what was heard last is all that there is."""
        buckets = {float(edge_s): int(float(steps)) for edge_s, steps in _BUCKET.findall(page)}
        if buckets:
            self._by_engine[engine] = buckets

    @property
    def steps(self) -> int:
        return self._upto()[math.inf]

    def share_within(self, edge_s: float) -> float | None:
        """`edge_s` must be an edge of the histogram."""
        upto = self._upto()
        return upto[edge_s] / upto[math.inf] if upto[math.inf] else None

    def percentile_s(self, share: float) -> float | None:
        """Between two edges linear, as Prometheus reads it; None without a step."""
        upto = self._upto()
        wanted = share * upto[math.inf]
        below_s, below = 0.0, 0
        for edge_s, steps in sorted(upto.items()):
            if steps and steps >= wanted:
                part = (wanted - below) / max(steps - below, 1)
                return below_s if edge_s == math.inf else below_s + (edge_s - below_s) * part
            below_s, below = edge_s, steps
        return None

    def _upto(self) -> Counter[float]:
        """Steps by upper edge, cumulative."""
        upto: Counter[float] = Counter()
        for buckets in self._by_engine.values():
            upto.update(buckets)
        return upto
