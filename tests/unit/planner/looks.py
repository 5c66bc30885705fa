"""Observations for the tests of the planner: a service on H200-like GPUs, one figure changed at a time."""

from __future__ import annotations

from typing import Any

from paceline.planner import (
    MISSING,
    Figure,
    Goal,
    Group,
    Lengths,
    NodeGpus,
    Observation,
    Shape,
    StartTime,
    Traffic,
)
from paceline_core.latency import LatencyTarget, Targets
from paceline_core.timing import StepTiming

_EDGES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0)


def timing(one_ms: float, many_ms: float, prefill_ms: float, *, kv_cache_tokens: int) -> StepTiming:
    """From three step times: a lone decode, a batch of 128, a prefill of 2,048 tokens."""
    return StepTiming(
        knot_tokens=(1, 128, 2048, 8192),
        knot_s=(one_ms / 1e3, many_ms / 1e3, prefill_ms / 1e3, 4 * prefill_ms / 1e3),
        prefill_attention_s=0.03 * prefill_ms / 1e3 / (2048**2 / 2),
        decode_attention_s=0.08 * many_ms / 1e3 / (128 * 1024),
        kv_cache_tokens=kv_cache_tokens,
    )


TIMING = {
    1: timing(21.1, 31.0, 222, kv_cache_tokens=350_000),
    2: timing(13.3, 19.2, 142, kv_cache_tokens=1_100_000),
    4: timing(8.7, 13.5, 97, kv_cache_tokens=2_600_000),
    8: timing(6.8, 10.0, 71, kv_cache_tokens=5_600_000),
}
"""Near Llama-3.1-70B FP8 on H200."""

CHAT_PROMPT = Lengths(
    upper_tokens=_EDGES,
    counts=(0, 0, 0, 0, 10, 20, 50, 90, 200, 330, 250, 50, 0, 0),
    mean_tokens=1020.0,
)
CHAT_OUTPUT = Lengths(
    upper_tokens=_EDGES,
    counts=(0, 0, 5, 25, 60, 110, 200, 330, 250, 20, 0, 0, 0, 0),
    mean_tokens=195.0,
)


def targets(*, ttft_ms: int = 1000, tpot_ms: int = 50, ttft_per_thousand_ms: int = 0) -> Targets:
    every = LatencyTarget(
        name="all",
        max_prompt_tokens=None,
        ttft_ms=ttft_ms,
        ttft_per_thousand_prompt_tokens_ms=ttft_per_thousand_ms,
        tpot_ms=tpot_ms,
    )
    return Targets(classes=(every,))


def goal(*, ttft_ms: int = 1000, tpot_ms: int = 50, ttft_per_thousand_ms: int = 0, **changed: Any) -> Goal:
    fields: dict[str, Any] = {
        "targets": targets(ttft_ms=ttft_ms, tpot_ms=tpot_ms, ttft_per_thousand_ms=ttft_per_thousand_ms),
        "objective": 0.99,
        "allowed_tensor_parallel_sizes": (1, 2, 4, 8),
        "min_replicas": 1,
        "max_replicas": 32,
    }
    return Goal(**(fields | changed))


def traffic(requests_per_s: float, /, **changed: Any) -> Traffic:
    fields: dict[str, Any] = {
        "requests_per_s": Figure(value=requests_per_s, age_s=5.0, samples=requests_per_s * 60),
        "window_s": 60.0,
        "prompt": CHAT_PROMPT,
        "output": CHAT_OUTPUT,
        "cached_prompt_share": Figure(value=0.0, age_s=5.0, samples=requests_per_s * 60),
        "held_requests": Figure(value=0.0, age_s=5.0, samples=4),
    }
    return Traffic(**(fields | changed))


def shape(tensor_parallel_size: int, replicas: int) -> Shape:
    return Shape(tensor_parallel_size=tensor_parallel_size, replicas=replicas)


def nodes(count: int, *, used: int = 0) -> tuple[NodeGpus, ...]:
    """Nodes of 8 GPUs; the first ones are taken as far as `used` goes."""
    found = []
    for _ in range(count):
        taken = min(used, 8)
        used -= taken
        found.append(NodeGpus(total=8, free=8 - taken))
    return tuple(found)


def look(requests_per_s: float, current: Shape, /, *, now_s: float = 0.0, **changed: Any) -> Observation:
    """One steady look: all that is told to run is Ready."""
    fields: dict[str, Any] = {
        "now_s": now_s,
        "goal": goal(),
        "traffic": traffic(requests_per_s),
        "attainment": MISSING,
        "groups": (Group(tensor_parallel_size=current.tensor_parallel_size, ready=current.replicas),),
        "nodes": nodes(8, used=current.gpus),
        "start_times": tuple(
            StartTime(tensor_parallel_size=size, p50_s=90.0, p90_s=120.0, starts=5) for size in (1, 2, 4, 8)
        ),
        "current": current,
    }
    return Observation(**(fields | changed))
