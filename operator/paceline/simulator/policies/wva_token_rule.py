"""The rule of llm-d's Workload Variant Autoscaler, token saturation V2: demand and supply in tokens of KV cache."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    kv_threshold: float = 0.80
    queue_threshold: float = 5.0
    up_threshold: float = 0.85
    down_boundary: float = 0.70
    max_batched_tokens: int = 8192
    max_sequences: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    tokens_in_use: float
    queue: float
    kv_cache_tokens: float


class TokenRule:
    """Remembers what replicas held when their queue was full (k2), for they can hold less than their KV cache."""

    def __init__(self, settings: TokenSettings) -> None:
        self.settings = settings
        self._seen_full: deque[float] = deque(maxlen=10)

    def capacity_tokens(
        self, loads: Sequence[ReplicaLoad], *, prompt_tokens: float, output_tokens: float
    ) -> float:
        """Of one replica: the median over replicas of min(k1, k2)."""
        settings = self.settings
        for load in loads:
            if load.queue >= settings.queue_threshold:
                self._seen_full.append(load.tokens_in_use)
        if self._seen_full:
            k2 = sum(self._seen_full) / len(self._seen_full)
        elif prompt_tokens + output_tokens > 0:
            n = min(
                settings.max_batched_tokens * output_tokens / (prompt_tokens + output_tokens),
                settings.max_sequences,
            )
            k2 = n * (prompt_tokens + output_tokens / 2)
        else:
            k2 = math.inf
        return median(min(settings.kv_threshold * load.kv_cache_tokens, k2) for load in loads)

    def desired(
        self, loads: Sequence[ReplicaLoad], *, prompt_tokens: float, output_tokens: float, pending: int
    ) -> int:
        """Replicas in all; `loads` are those that serve, `pending` those that start."""
        if not loads:
            return pending
        capacity = self.capacity_tokens(loads, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        if capacity <= 0:
            return len(loads) + pending
        demand = sum(load.tokens_in_use + load.queue * prompt_tokens for load in loads)
        supply = capacity * len(loads)
        required = demand / self.settings.up_threshold - supply - capacity * pending
        if required > 0:
            return len(loads) + pending + math.ceil(required / capacity)
        spare = supply - demand / self.settings.down_boundary
        if spare > 0 and not pending:
            return max(len(loads) - math.floor(spare / capacity), 1)
        return len(loads) + pending
