"""Samples of the last so many seconds: what every rival's averaging, stabilisation and look-back is made of."""

from __future__ import annotations

from collections import deque


class Window:
    """Keeps what is younger than `span_s`; a sample exactly that old is gone."""

    def __init__(self, span_s: float) -> None:
        self.span_s = span_s
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, value: float, *, now_s: float) -> None:
        self._samples.append((now_s, value))
        self.forget(now_s)

    def forget(self, now_s: float) -> None:
        while self._samples and self._samples[0][0] <= now_s - self.span_s:
            self._samples.popleft()

    def clear(self) -> None:
        self._samples.clear()

    def __len__(self) -> int:
        return len(self._samples)

    def values(self) -> list[float]:
        return [value for _, value in self._samples]

    def mean(self) -> float | None:
        """None when empty: no samples is not zero."""
        return sum(self.values()) / len(self._samples) if self._samples else None

    def total(self) -> float:
        return sum(self.values())

    def highest(self, otherwise: float) -> float:
        return max(self.values(), default=otherwise)

    def lowest(self, otherwise: float) -> float:
        return min(self.values(), default=otherwise)
