"""The rule of Kubernetes' HorizontalPodAutoscaler (autoscaling/v2), without Kubernetes.

Three ways from a metric to a number of replicas, and the behaviour that then slows the number down. Used by
every rival that ends in an HPA: the plain ones, KEDA, llm-d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from paceline.simulator.policies.window import Window

PERIOD_S = 15.0
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """`spec.behavior`; the defaults are those of Kubernetes. Of several policies, the largest change counts."""

    up_percent: float = 100.0
    up_pods: int = 4
    up_period_s: float = 15.0
    up_stabilization_s: float = 0.0
    down_percent: float | None = 100.0
    down_pods: int | None = None
    down_period_s: float = 15.0
    down_stabilization_s: float = 300.0


def average_value(total: float, *, target: float, replicas: int) -> int:
    """An external or object metric with `AverageValue`: so many replicas that each has `target` of the total."""
    ratio = total / (target * replicas) if replicas else math.inf
    return replicas if _tolerated(ratio) else math.ceil(total / target)


def value(measured: float, *, target: float, ready: int, replicas: int) -> int:
    """An external or object metric with `Value`: ratio control on the pods that are ready."""
    ratio = measured / target
    return replicas if _tolerated(ratio) else math.ceil(ratio * ready)


def pods_metric(
    values: Sequence[float], *, target: float, replicas: int, unready: int = 0, missing: int = 0
) -> int | None:
    """A metric of type Pods. None: no pod reports, and the HPA does nothing.

    Pods that are not ready yet count as 0 when the metric asks for more. Pods without a sample count as 0 then,
    and as exactly on target when it asks for fewer. If that turns the direction round, nothing happens.
    """
    if not values:
        return None
    ratio = sum(values) / len(values) / target
    if not missing and not (unready and ratio > 1):
        return replicas if _tolerated(ratio) else math.ceil(ratio * len(values))
    padded = list(values) + [0.0 if ratio > 1 else target] * missing
    if ratio > 1:
        padded += [0.0] * unready
    padded_ratio = sum(padded) / len(padded) / target
    flipped = (ratio < 1) != (padded_ratio < 1)
    if _tolerated(padded_ratio) or flipped:
        return replicas
    wanted = math.ceil(padded_ratio * len(padded))
    turned = (padded_ratio < 1 and wanted > replicas) or (padded_ratio > 1 and wanted < replicas)
    return replicas if turned else wanted


def _tolerated(ratio: float) -> bool:
    return 1.0 - TOLERANCE <= ratio <= 1.0 + TOLERANCE


class Brakes:
    """Stabilisation windows and rates: what an HPA makes of a recommendation."""

    def __init__(self, behavior: Behavior, *, min_replicas: int, max_replicas: int) -> None:
        self.behavior = behavior
        self.min_replicas = min_replicas
        self.max_replicas = max_replicas
        self._recommended_up = Window(max(behavior.up_stabilization_s, 1e-9))
        self._recommended_down = Window(max(behavior.down_stabilization_s, 1e-9))
        self._added = Window(behavior.up_period_s)
        self._removed = Window(behavior.down_period_s)
        self._looked = False

    def settle(self, recommended: int, *, now_s: float, replicas: int) -> int:
        """The replicas that the HPA writes now. What it found at its first look counts as recommended."""
        if not self._looked:
            self._looked = True
            if self.behavior.up_stabilization_s:
                self._recommended_up.add(replicas, now_s=now_s)
            if self.behavior.down_stabilization_s:
                self._recommended_down.add(replicas, now_s=now_s)
        self._recommended_up.add(recommended, now_s=now_s)
        self._recommended_down.add(recommended, now_s=now_s)
        up = int(self._recommended_up.lowest(recommended))
        down = int(self._recommended_down.highest(recommended))
        wanted = up if replicas < up else down if replicas > down else replicas
        self._added.forget(now_s)
        self._removed.forget(now_s)
        if wanted > replicas:
            began = replicas - self._added.total()
            most = max(math.ceil(began * (1 + self.behavior.up_percent / 100)), began + self.behavior.up_pods)
            wanted = max(replicas, min(wanted, int(most)))
        elif wanted < replicas:
            began = replicas + self._removed.total()
            wanted = min(replicas, max(wanted, self._least(began)))
        wanted = min(max(wanted, self.min_replicas), self.max_replicas)
        if wanted > replicas:
            self._added.add(wanted - replicas, now_s=now_s)
        elif wanted < replicas:
            self._removed.add(replicas - wanted, now_s=now_s)
        return wanted

    def _least(self, began: float) -> int:
        limits = []
        if self.behavior.down_percent is not None:
            limits.append(math.floor(began * (1 - self.behavior.down_percent / 100)))
        if self.behavior.down_pods is not None:
            limits.append(int(began) - self.behavior.down_pods)
        return min(limits, default=0)
