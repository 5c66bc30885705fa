"""The rule of llm-d's Workload Variant Autoscaler, saturation V1: spare KV cache and spare queue a replica.

It reads no latency. One replica up or down at a time, and nothing while anything is in transition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

POLL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationSettings:
    """Defaults of the `saturation-scaling-config` ConfigMap."""

    kv_threshold: float = 0.80
    queue_threshold: float = 5.0
    kv_spare_trigger: float = 0.10
    queue_spare_trigger: float = 3.0


def step(loads: Sequence[tuple[float, float]], settings: SaturationSettings) -> Literal[-1, 0, 1]:
    """`loads`: (KV use 0 to 1, requests waiting) of each replica that reports."""
    free = [
        (kv, queue) for kv, queue in loads if kv < settings.kv_threshold and queue < settings.queue_threshold
    ]
    if not loads:
        return 0
    n = len(free)
    if not n:
        return 1
    kv, queue = sum(kv for kv, _ in free) / n, sum(queue for _, queue in free) / n
    if _short(kv, queue, settings):
        return 1
    if n >= 2 and not _short(kv * n / (n - 1), queue * n / (n - 1), settings):
        return -1
    return 0


def _short(kv: float, queue: float, settings: SaturationSettings) -> bool:
    return (
        settings.kv_threshold - kv < settings.kv_spare_trigger
        or settings.queue_threshold - queue < settings.queue_spare_trigger
    )
