"""What is left of a service's error budget, and how fast it goes: counted from the looks of the decision loop.

Each look knows how many requests of the last minute counted and how many were good. Their part since the look
before is added up here, in coarse buckets over the SLO's window and in fine ones over some hours. So the
budget of 28 days costs Prometheus nothing beyond what the loop asks anyway, whatever its retention; time in
which metrics were unknown is in neither sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from paceline.api import BurnRate

BURN_WINDOWS_S = (3600, 21_600)
"""An hour: something is wrong now. Six: it goes on."""

FINE_S = 300.0
FINE_KEPT = int(BURN_WINDOWS_S[-1] / FINE_S) + 1
COARSE_PARTS = 48


@dataclass(slots=True)
class _Ring:
    """Sums of good and counted requests in buckets of equal width, the newest last."""

    width_s: float
    kept: int
    buckets: list[tuple[int, float, float]] = field(default_factory=list)
    """(number of the bucket, good, counted)"""

    def add(self, now_s: float, *, good: float, counted: float) -> None:
        number = int(now_s / self.width_s)
        if self.buckets and self.buckets[-1][0] >= number:
            number, before_good, before_counted = self.buckets.pop()
            good, counted = good + before_good, counted + before_counted
        self.buckets.append((number, good, counted))
        del self.buckets[: -self.kept]

    def sums(self, now_s: float, *, window_s: float) -> tuple[float, float]:
        oldest = int((now_s - window_s) / self.width_s)
        found = [one for one in self.buckets if one[0] > oldest]
        return sum(good for _, good, _ in found), sum(counted for _, _, counted in found)


class ErrorBudget:
    def __init__(self, *, window_s: float) -> None:
        self.window_s = window_s
        self._fine = _Ring(FINE_S, FINE_KEPT)
        self._coarse = _Ring(max(window_s / COARSE_PARTS, FINE_S), COARSE_PARTS + 1)
        self._looked_s: float | None = None

    def look(self, now_s: float, *, share: float | None, samples: float | None, over_s: float) -> None:
        """`share` of `samples` requests of the last `over_s` seconds were good; None: not known."""
        since_s = now_s - self._looked_s if self._looked_s is not None else 0.0
        self._looked_s = now_s
        if share is None or samples is None or since_s <= 0:
            return
        counted = samples * min(since_s, over_s) / over_s
        for ring in (self._fine, self._coarse):
            ring.add(now_s, good=share * counted, counted=counted)

    def remaining(self, now_s: float, *, objective: float) -> float | None:
        """Of 1; negative where more was missed than the objective allows. None before the first request."""
        good, counted = self._coarse.sums(now_s, window_s=self.window_s)
        allowed = (1 - objective) * counted
        return 1 - (counted - good) / allowed if allowed > 0 else None

    def burn_rates(self, now_s: float, *, objective: float) -> tuple[BurnRate, ...]:
        found = []
        for window_s in BURN_WINDOWS_S:
            good, counted = self._fine.sums(now_s, window_s=window_s)
            if counted > 0:
                rate = (counted - good) / counted / (1 - objective)
                found.append(BurnRate(window_seconds=window_s, value=f"{rate:.1f}"))
        return tuple(found)

    def plain(self) -> dict[str, list[list[float]]]:
        """To be kept, and given back to `restore`."""
        return {
            name: [[number, round(good, 2), round(counted, 2)] for number, good, counted in ring.buckets]
            for name, ring in (("fine", self._fine), ("coarse", self._coarse))
        } | {"window": [[self.window_s]]}

    def restore(self, plain: object) -> None:
        """What an earlier process counted, if it was for the same window."""
        if not isinstance(plain, dict) or plain.get("window") != [[self.window_s]]:
            return
        for name, ring in (("fine", self._fine), ("coarse", self._coarse)):
            ring.buckets = [_bucket(one) for one in plain.get(name) or ()][-ring.kept :]


def _bucket(values: Iterable[float]) -> tuple[int, float, float]:
    number, good, counted = values
    return int(number), float(good), float(counted)
