"""Kubernetes' HPA on the engines' gauges: queue length, KV cache use, or requests in the engine; and KEDA.

KEDA hands everything above one replica to an HPA on an external metric: the same rule, fed by a Prometheus query
of the sum. It would add the step between none and one, which these suites do not use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from paceline.simulator.policies.hpa_rule import PERIOD_S, Behavior, Brakes, average_value, pods_metric
from paceline.simulator.policies.sight import ReplicaSample, Sight

Gauge = Literal["queue", "kv", "concurrency"]

_READ: dict[Gauge, Callable[[ReplicaSample], float]] = {
    "queue": lambda sample: sample.waiting,
    "kv": lambda sample: sample.kv_usage,
    "concurrency": lambda sample: sample.running + sample.waiting,
}


class PodsHpa:
    """A metric of type Pods with `averageValue`."""

    period_s = PERIOD_S

    def __init__(
        self, gauge: Gauge, *, target: float, down_stabilization_s: float, max_replicas: int
    ) -> None:
        self._read = _READ[gauge]
        self._target = target
        self._brakes = Brakes(
            Behavior(down_stabilization_s=down_stabilization_s), min_replicas=1, max_replicas=max_replicas
        )

    def replicas(self, sight: Sight) -> int:
        values = [self._read(sample) for sample in sight.samples()]
        recommended = pods_metric(
            values,
            target=self._target,
            replicas=sight.asked,
            unready=max(sight.asked - sight.ready, 0),
            missing=max(min(sight.ready, sight.asked) - len(values), 0),
        )
        if recommended is None:
            return sight.asked
        return self._brakes.settle(recommended, now_s=sight.now_s, replicas=sight.asked)


class ExternalHpa:
    """The sum over all replicas as an external metric with `AverageValue`: what KEDA's Prometheus trigger is."""

    period_s = PERIOD_S

    def __init__(
        self, gauge: Gauge, *, target: float, down_stabilization_s: float, max_replicas: int
    ) -> None:
        self._read = _READ[gauge]
        self._target = target
        self._brakes = Brakes(
            Behavior(down_stabilization_s=down_stabilization_s), min_replicas=1, max_replicas=max_replicas
        )

    def replicas(self, sight: Sight) -> int:
        samples = sight.samples()
        if not samples:
            return sight.asked
        total = sum(self._read(sample) for sample in samples)
        recommended = average_value(total, target=self._target, replicas=sight.asked)
        return self._brakes.settle(recommended, now_s=sight.now_s, replicas=sight.asked)
