"""How well the planner's model predicts: `python -m benchmarks.planner_accuracy` (simulated, not measured).

Shapes that stand still under Poisson arrivals are replayed in the simulator; mean TTFT and attainment there stand beside
those predicted. The error in capacity is the figure that costs GPUs: by which factor the rate at the predicted attainment
differs from the rate at the attainment found. It is not said where too few or too many requests miss to tell a rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from paceline.planner import Goal, Lengths, Shape
from paceline.planner.mix import Mix, points_of
from paceline.planner.performance import ReplicaModel
from paceline.planner.surface import Surface
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.policies.shapes import Still
from paceline.simulator.simulation import Setting, simulate
from paceline_core.latency import LatencyTarget, Targets
from paceline_core.timing_tables import load_table

_EDGES = tuple(float(round(2 ** (step / 2))) for step in range(4, 32))
MIXES = {
    "chat": ((900, 1.0), (160, 0.8), 1000, 50),
    "code": ((1500, 0.8), (25, 0.9), 1000, 100),
    "documents": ((4000, 0.9), (200, 0.7), 2500, 75),
}
"""Median and spread of lognormal prompts and outputs; TTFT and TPOT targets in ms."""
TELLING_MISSES = (0.003, 0.5)
"""Between these shares of misses the attainment tells the rate."""


def _lengths(tokens: np.ndarray) -> Lengths:
    counts, _ = np.histogram(tokens, bins=(0.0, *_EDGES))
    return Lengths(upper_tokens=_EDGES, counts=tuple(map(float, counts)), mean_tokens=float(tokens.mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--sizes", default="2,4")
    parser.add_argument("--replicas", default="1,4,12")
    parser.add_argument("--shares", default="0.3,0.5,0.6,0.7", help="of the highest rate")
    asked = parser.parse_args()
    table = load_table("llama-3.1-70b", "fp8", "h200").by_tensor_parallel_size
    rng = np.random.default_rng(0)
    print("| mix | TP | replicas | load | TTFT simulated | predicted | attainment | predicted | capacity |")
    print("|---|---|---|---|---|---|---|---|---|")
    errors: list[tuple[float, float, float]] = []
    for name, (prompt, output, ttft_ms, tpot_ms) in MIXES.items():
        prompts = np.clip(rng.lognormal(np.log(prompt[0]), prompt[1], asked.requests), 4, 16_000).astype(int)
        outputs = np.clip(rng.lognormal(np.log(output[0]), output[1], asked.requests), 2, 2_000).astype(int)
        points, answers = points_of(_lengths(prompts)), points_of(_lengths(outputs))
        assert points is not None
        assert answers is not None
        target = LatencyTarget(
            name="all",
            max_prompt_tokens=None,
            ttft_ms=ttft_ms,
            ttft_per_thousand_prompt_tokens_ms=0,
            tpot_ms=tpot_ms,
        )
        for size in map(int, asked.sizes.split(",")):
            goal = Goal(
                targets=Targets(classes=(target,)),
                objective=0.99,
                allowed_tensor_parallel_sizes=(size,),
                min_replicas=1,
                max_replicas=64,
            )
            mix = Mix(prompt=points, output=answers, cached_share=0.0)
            model = ReplicaModel(table[size], mix=mix, goal=goal)
            surface = Surface(model)
            for replicas in map(int, asked.replicas.split(",")):
                for share in map(float, asked.shares.split(",")):
                    rate = share * surface.most_rate
                    arrivals = np.cumsum(rng.exponential(1 / (rate * replicas), asked.requests))
                    run = simulate(
                        Traffic(
                            arrival_s=arrivals,
                            prompt_tokens=prompts,
                            output_tokens=outputs,
                            end_s=float(arrivals[-1]) + 1,
                        ),
                        Setting(timing=table, goal=goal, max_gpus=size * replicas, start_s=60.0),
                        Still(Shape(tensor_parallel_size=size, replicas=replicas)),
                        first=Shape(tensor_parallel_size=size, replicas=replicas),
                        seed=1,
                    )
                    settled = slice(asked.requests // 10, None)
                    found = float(run.outcomes.good[settled].mean())
                    ttft_s = float(run.outcomes.ttft_s[settled].mean())
                    predicted = 1 - surface.miss_one(rate, replicas=replicas)
                    outlook = model.outlook(np.array([rate]), replicas=np.array([float(replicas)]))
                    expected_s = float(outlook.ttft_mean_s[0])
                    capacity = _capacity_error(surface, found, rate, replicas)
                    errors.append((expected_s / ttft_s - 1, predicted - found, capacity))
                    print(
                        f"| {name} | {size} | {replicas} | {share:.2f} | {ttft_s * 1000:.0f} ms "
                        f"| {expected_s * 1000:.0f} ms | {found:.2%} | {predicted:.2%} "
                        f"| {'' if np.isnan(capacity) else f'{capacity:+.1%}'} |",
                        flush=True,
                    )
    print()
    print("| error of | mean | mean size | lowest | highest |")
    print("|---|---|---|---|---|")
    for name, column in zip(("TTFT", "attainment", "capacity"), zip(*errors, strict=True), strict=True):
        print(f"| {name} | {_in_short(column)} |")


def _in_short(errors: Sequence[float]) -> str:
    told = np.array(errors)[~np.isnan(errors)]
    if not len(told):
        return "not told | | |"
    return f"{told.mean():+.1%} | {np.abs(told).mean():.1%} | {told.min():+.1%} | {told.max():+.1%}"


def _capacity_error(surface: Surface, found: float, rate: float, replicas: int) -> float:
    """By how much the model over- (+) or underestimates (−) the rate at which this attainment is had; NaN: no telling."""
    if not TELLING_MISSES[0] <= 1 - found <= TELLING_MISSES[1]:
        return float("nan")
    rates = np.linspace(0.02, 0.99, 400) * surface.most_rate
    miss = surface.miss(rates, replicas=replicas)
    return float(np.interp(1 - found, miss, rates)) / rate - 1


if __name__ == "__main__":
    main()
