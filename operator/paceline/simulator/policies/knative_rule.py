"""The rule of Knative's pod autoscaler (KPA) on concurrency: a stable window, and a panic window inside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

TICK_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnativeSettings:
    """Defaults of `config-autoscaler`."""

    stable_window_s: float = 60.0
    panic_window_share: float = 0.10
    panic_threshold: float = 2.0
    max_scale_up: float = 1000.0
    max_scale_down: float = 2.0
    target_concurrency: float = 100.0
    target_utilization: float = 0.70
    scale_down_delay_s: float = 0.0

    @property
    def target(self) -> float:
        return self.target_concurrency * self.target_utilization

    @property
    def panic_window_s(self) -> float:
        return self.stable_window_s * self.panic_window_share


class KnativeRule:
    def __init__(self, settings: KnativeSettings) -> None:
        self.settings = settings
        self._panic_until_s: float | None = None
        self._most_in_panic = 0

    @property
    def panicking(self) -> bool:
        return self._panic_until_s is not None

    def desired(self, *, now_s: float, stable: float, panic: float, ready: int) -> int:
        """Replicas for the mean concurrency of the whole service over the two windows."""
        counted = max(ready, 1)
        most = math.ceil(self.settings.max_scale_up * counted)
        least = math.floor(counted / self.settings.max_scale_down)
        by_stable = min(max(math.ceil(stable / self.settings.target), least), most)
        by_panic = min(max(math.ceil(panic / self.settings.target), least), most)
        if math.ceil(panic / self.settings.target) / counted >= self.settings.panic_threshold:
            self._panic_until_s = now_s + self.settings.stable_window_s
        elif self._panic_until_s is not None and now_s >= self._panic_until_s:
            self._panic_until_s, self._most_in_panic = None, 0
        if self._panic_until_s is None:
            return by_stable
        self._most_in_panic = max(self._most_in_panic, counted, by_stable, by_panic)
        return self._most_in_panic
