"""How long one decision takes: `python -m benchmarks.planner_speed` (CPU time of this process).

A service that is watched for a day: traffic changes with every look and the mix every few minutes, so the cost of new
tables is in the figures as often as it is in life. The day is repeated with a new planner, and the fastest counts for
each look: other processes on a busy machine stretch CPU time too.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from paceline.planner import (
    Figure,
    Goal,
    Group,
    Lengths,
    NodeGpus,
    Observation,
    Planner,
    PlannerSettings,
    PlannerState,
    Shape,
    StartTime,
    Traffic,
)
from paceline_core.latency import LatencyTarget, Targets
from paceline_core.timing_tables import load_table

_EDGES = tuple(float(2 ** (step / 2)) for step in range(4, 32))


def _lengths(rng: np.random.Generator, *, middle: float, spread: float, requests: int) -> Lengths:
    tokens = np.exp(rng.normal(np.log(middle), spread, max(requests, 1)))
    counts, _ = np.histogram(tokens, bins=(0.0, *_EDGES))
    return Lengths(upper_tokens=_EDGES, counts=tuple(map(float, counts)), mean_tokens=float(tokens.mean()))


def _observation(rng: np.random.Generator, *, now_s: float, current: Shape, goal: Goal) -> Observation:
    rate = 12.0 + 8.0 * np.sin(now_s / 86400 * 2 * np.pi)
    arrived = rng.poisson(rate * 60)
    drift = 1 + 0.3 * np.sin(now_s / 3600)
    return Observation(
        now_s=now_s,
        goal=goal,
        traffic=Traffic(
            requests_per_s=Figure(value=arrived / 60, age_s=5.0, samples=arrived),
            window_s=60.0,
            prompt=_lengths(rng, middle=900 * drift, spread=1.0, requests=arrived),
            output=_lengths(rng, middle=160, spread=0.8, requests=arrived),
        ),
        attainment=Figure(value=1 - rng.poisson(arrived * 0.004) / max(arrived, 1), samples=arrived),
        groups=(
            Group(
                tensor_parallel_size=current.tensor_parallel_size,
                ready=current.replicas,
                running=Figure(value=rate * 4),
                waiting=Figure(value=0.0),
            ),
        ),
        nodes=tuple(NodeGpus(total=8, free=8) for _ in range(16)),
        start_times=(
            StartTime(tensor_parallel_size=current.tensor_parallel_size, p50_s=90.0, p90_s=120.0, starts=9),
        ),
        current=current,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--looks", type=int, default=5760, help="15 s apart: 5760 are a day")
    parser.add_argument("--candidates", type=int, default=64, help="listed in a decision; simulations list 1")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    days = [_watched(looks=asked.looks, candidates=asked.candidates) for _ in range(asked.repeats)]
    took_ms = np.min([took_s for took_s, _ in days], axis=0) * 1e3
    _, listed = days[0]
    print(
        f"{asked.looks} decisions, {listed:.0f} candidates each: mean {took_ms.mean():.2f} ms, "
        f"p50 {np.median(took_ms):.2f} ms, p99 {np.quantile(took_ms, 0.99):.2f} ms, most {took_ms.max():.2f} ms"
    )


def _watched(*, looks: int, candidates: int) -> tuple[list[float], float]:
    """Seconds for each look, and how many candidates a decision lists in the mean."""
    target = LatencyTarget(
        name="all", max_prompt_tokens=None, ttft_ms=1000, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=50
    )
    goal = Goal(
        targets=Targets(classes=(target,)),
        objective=0.99,
        allowed_tensor_parallel_sizes=(1, 2, 4, 8),
        min_replicas=1,
        max_replicas=64,
    )
    planner = Planner(
        timing=load_table("llama-3.1-70b", "fp8", "h200").by_tensor_parallel_size,
        settings=PlannerSettings(max_candidates=candidates),
    )
    rng = np.random.default_rng(0)
    state, current = PlannerState(), Shape(tensor_parallel_size=2, replicas=4)
    took_s, listed = [], []
    for tick in range(looks):
        seen = _observation(rng, now_s=15.0 * tick, current=current, goal=goal)
        began_s = time.process_time()
        decision = planner.decide(seen, state)
        took_s.append(time.process_time() - began_s)
        listed.append(len(decision.candidates))
        state, current = decision.state, decision.shape
    return took_s, float(np.mean(listed))


if __name__ == "__main__":
    main()
