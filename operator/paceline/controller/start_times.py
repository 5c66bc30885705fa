"""How long this service's own pods took from their creation to Ready: learned, a few starts per size.

Fed by the decision loop with every look. The planner looks ahead by these times: a service that starts in two
minutes must be scaled two minutes before it is short.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Pod
from paceline.planner import StartTime

KEPT_STARTS = 20
"""Per service and size: older ones were of another image, or of a colder cache."""

KEPT_PODS = 20_000
"""Pods that were counted already; the oldest are forgotten."""


class StartTimes:
    def __init__(self) -> None:
        self._seconds: dict[ServiceKey, dict[int, list[float]]] = {}
        self._counted: OrderedDict[str, None] = OrderedDict()

    def hear(self, key: ServiceKey, pods: Iterable[Pod]) -> None:
        for pod in pods:
            if pod.component != "engine" or pod.tensor_parallel_size is None or pod.ready_since_s is None:
                continue
            if pod.uid in self._counted or pod.restarts or pod.ordered is not None:
                # One that was told another layout was Ready before: its creation is not where this start began.
                continue
            self._counted[pod.uid] = None
            while len(self._counted) > KEPT_PODS:
                self._counted.popitem(last=False)
            starts = self._seconds.setdefault(key, {}).setdefault(pod.tensor_parallel_size, [])
            starts.append(max(0.0, pod.ready_since_s - pod.created_at_s))
            del starts[:-KEPT_STARTS]

    def of(self, key: ServiceKey) -> tuple[StartTime, ...]:
        return tuple(
            StartTime(
                tensor_parallel_size=size,
                p50_s=_quantile(seconds, 0.5),
                p90_s=_quantile(seconds, 0.9),
                starts=len(seconds),
            )
            for size, seconds in sorted(self._seconds.get(key, {}).items())
        )

    def seconds(self, key: ServiceKey) -> dict[str, list[float]]:
        """To be kept, and given back to `restore`."""
        return {str(size): list(seconds) for size, seconds in self._seconds.get(key, {}).items()}

    def restore(self, key: ServiceKey, seconds: Mapping[str, Iterable[float]]) -> None:
        """What an earlier process learned; its pods may be counted once more."""
        for size, values in seconds.items():
            known = self._seconds.setdefault(key, {}).setdefault(int(size), [])
            known[:0] = [float(one) for one in values]
            del known[:-KEPT_STARTS]

    def forget(self, key: ServiceKey) -> None:
        self._seconds.pop(key, None)


def _quantile(values: list[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
