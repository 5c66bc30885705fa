"""The scrapes of a simulated service, as a rival asks for them and as the planner is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from paceline.metrics.settings import Rules
from paceline.planner import (
    MISSING,
    Figure,
    Goal,
    Group,
    Lengths,
    NodeGpus,
    Observation,
    Quantiles,
    Shape,
    StartTime,
    Traffic,
)
from paceline.planner.observation import Trust
from paceline.simulator.core import counters, layout
from paceline.simulator.core.scrapes import Increase, Scrapes
from paceline.simulator.core.world import World
from paceline.simulator.policies.sight import ReplicaSample

EPOCH_S = 1_767_225_600.0
"""A simulation's zero in the planner's Unix time: 2026-01-01."""

_RULES = Rules()
PLANNER_WINDOW_S = _RULES.window_s
STALE_AFTER_S = _RULES.stale_after_s
LEAST_SAMPLES = _RULES.min_samples


@dataclass(slots=True, kw_only=True)
class ScrapedSight:
    """What `Sight` promises, from the last scrapes."""

    world: World
    scrapes: Scrapes

    @property
    def now_s(self) -> float:
        return self.world.now_s

    @property
    def asked(self) -> int:
        return self.world.asked.replicas

    @property
    def ready(self) -> int:
        return len(self.world.serving(self.world.asked.tensor_parallel_size))

    @property
    def held(self) -> float:
        last = self.scrapes.last()
        return float(last.held) if last else 0.0

    def samples(self) -> Sequence[ReplicaSample]:
        last = self.scrapes.last()
        if last is None:
            return []
        return [
            ReplicaSample(running=one.running, waiting=one.waiting, kv_usage=one.kv_usage)
            for one in last.gauges
            if self.world.status[one.slot] == layout.READY
        ]

    def requests_per_s(self, window_s: float) -> float | None:
        seen = self.scrapes.increase(window_s)
        return seen[counters.ARRIVALS] / seen.over_s if seen else None

    def prompt_tokens(self, window_s: float) -> float | None:
        seen = self.scrapes.increase(window_s)
        return seen.mean(counters.ARRIVED_PROMPT, counters.ARRIVALS) if seen else None

    def output_tokens(self, window_s: float) -> float | None:
        seen = self.scrapes.increase(window_s)
        return seen.mean(counters.OUTPUT_SUM, counters.FINISHED) if seen else None

    def ttft_s(self, quantile: float, window_s: float) -> float | None:
        return self.scrapes.latency_s("ttft", quantile, window_s)

    def tpot_s(self, quantile: float, window_s: float) -> float | None:
        return self.scrapes.latency_s("tpot", quantile, window_s)

    def mean_ttft_s(self, window_s: float) -> float | None:
        seen = self.scrapes.increase(window_s)
        return seen.mean(counters.TTFT_SUM, counters.FIRSTS) if seen else None

    def mean_tpot_s(self, window_s: float) -> float | None:
        seen = self.scrapes.increase(window_s)
        return seen.mean(counters.TPOT_SUM, counters.TPOTS) if seen else None

    def mean_request_s(self, window_s: float) -> float | None:
        seen = self.scrapes.increase(window_s)
        return seen.mean(counters.REQUEST_SUM, counters.FINISHED) if seen else None


def observation_of(world: World, scrapes: Scrapes, *, goal: Goal) -> Observation:
    """As `paceline.metrics` would put it together from the same scrapes."""
    seen = scrapes.increase(PLANNER_WINDOW_S)
    last = scrapes.last()
    asked = world.asked
    return Observation(
        now_s=EPOCH_S + world.now_s,
        goal=goal,
        traffic=Traffic(
            requests_per_s=_rate(seen),
            window_s=PLANNER_WINDOW_S,
            prompt=_lengths(seen, "prompt"),
            output=_lengths(seen, "output"),
            cached_prompt_share=_cached(seen),
            held_requests=MISSING
            if last is None
            else _figure(last.held, age_s=world.now_s - last.at_s, samples=1, least=0),
        ),
        attainment=_attainment(seen),
        groups=tuple(
            _group(world, scrapes, size)
            for size in sorted({pod.size for pod in world.pods} or {asked.tensor_parallel_size})
        ),
        nodes=tuple(
            NodeGpus(total=total, free=free) for total, free in zip(world.nodes, world.free_gpus, strict=True)
        ),
        start_times=tuple(_start_time(size, took_s) for size, took_s in sorted(world.start_times.items())),
        current=Shape(tensor_parallel_size=asked.tensor_parallel_size, replicas=asked.replicas),
        changing=any(pod.size != asked.tensor_parallel_size for pod in world.pods),
    )


def _start_time(size: int, took_s: list[float]) -> StartTime:
    ascending = sorted(took_s)
    return StartTime(
        tensor_parallel_size=size,
        p50_s=_quantile(ascending, 0.5),
        p90_s=_quantile(ascending, 0.9),
        starts=len(took_s),
    )


def _quantile(ascending: Sequence[float], share: float) -> float:
    """As numpy's, which on so few values takes fifty times as long."""
    left, part = divmod(share * (len(ascending) - 1), 1)
    low, high = ascending[int(left)], ascending[min(int(left) + 1, len(ascending) - 1)]
    return low + (high - low) * part


def _figure(value: float | None, *, age_s: float, samples: float, least: float) -> Figure:
    if value is None or not math.isfinite(value):
        return MISSING
    trust: Trust = "Stale" if age_s > STALE_AFTER_S else "Thin" if samples < least else "Fresh"
    return Figure(value=value, age_s=age_s, samples=samples, trust=trust)


def _rate(seen: Increase | None) -> Figure:
    """No arrivals is a rate of 0, and known: the scrapes say so."""
    if seen is None:
        return MISSING
    return _figure(
        seen[counters.ARRIVALS] / seen.over_s, age_s=seen.age_s, samples=seen[counters.ARRIVALS], least=0
    )


def _cached(seen: Increase | None) -> Figure:
    if seen is None or seen[counters.COMPUTED] + seen[counters.CACHED] <= 0:
        return MISSING
    share = seen[counters.CACHED] / (seen[counters.COMPUTED] + seen[counters.CACHED])
    return _figure(share, age_s=seen.age_s, samples=seen[counters.FIRSTS], least=LEAST_SAMPLES)


def _attainment(seen: Increase | None) -> Figure:
    if seen is None:
        return MISSING
    return _figure(
        seen.mean(counters.GOOD, counters.JUDGED),
        age_s=seen.age_s,
        samples=seen[counters.JUDGED],
        least=LEAST_SAMPLES,
    )


def _lengths(seen: Increase | None, which: str) -> Lengths | None:
    if seen is None:
        return None
    counts = seen.prompt_histogram if which == "prompt" else seen.output_histogram
    mean = (
        seen.mean(counters.ARRIVED_PROMPT, counters.ARRIVALS)
        if which == "prompt"
        else seen.mean(counters.OUTPUT_SUM, counters.FINISHED)
    )
    if mean is None or counts.sum() < LEAST_SAMPLES:
        return None
    return Lengths(
        upper_tokens=(*counters.LENGTH_EDGES.tolist(), math.inf),
        counts=tuple(counts.tolist()),
        mean_tokens=mean,
    )


def _group(world: World, scrapes: Scrapes, size: int) -> Group:
    pods = [pod for pod in world.pods if pod.size == size]
    seen, last = scrapes.increase(PLANNER_WINDOW_S, size=size), scrapes.last()
    gauges = [one for one in last.gauges if one.size == size] if last else []
    age_s = world.now_s - last.at_s if last else 0.0

    def summed(value: float) -> Figure:
        return _figure(value, age_s=age_s, samples=len(gauges), least=1) if gauges else MISSING

    def latency(kind: str) -> Quantiles:
        if seen is None:
            return Quantiles()
        count = seen[counters.FIRSTS if kind == "ttft" else counters.TPOTS]
        quantile = seen.ttft_s if kind == "ttft" else seen.tpot_s
        mean = (
            seen.mean(counters.TTFT_SUM, counters.FIRSTS)
            if kind == "ttft"
            else seen.mean(counters.TPOT_SUM, counters.TPOTS)
        )
        made = [
            _figure(value, age_s=seen.age_s, samples=count, least=LEAST_SAMPLES)
            for value in (quantile(0.5), quantile(0.95), quantile(0.99), mean)
        ]
        return Quantiles(p50_s=made[0], p95_s=made[1], p99_s=made[2], mean_s=made[3])

    def rate(counter: int) -> Figure:
        if seen is None:
            return MISSING
        return _figure(seen[counter] / seen.over_s, age_s=seen.age_s, samples=seen[counters.FIRSTS], least=1)

    return Group(
        tensor_parallel_size=size,
        ready=len(world.serving(size)),
        starting_age_s=tuple(
            sorted(world.now_s - pod.created_s for pod in pods if world.status[pod.slot] == layout.STARTING)
        ),
        draining=sum(pod.draining for pod in pods),
        running=summed(sum(one.running for one in gauges)),
        waiting=summed(sum(one.waiting for one in gauges)),
        kv_cache_usage=summed(sum(one.kv_usage for one in gauges) / max(len(gauges), 1)),
        prefill_tokens_per_s=rate(counters.COMPUTED),
        decode_tokens_per_s=rate(counters.GENERATED),
        preemptions_per_s=rate(counters.PREEMPTED),
        time_to_first_token=latency("ttft"),
        time_per_output_token=latency("tpot"),
        kv_cache_tokens=world.settings.timing[size].kv_cache_tokens,
    )
