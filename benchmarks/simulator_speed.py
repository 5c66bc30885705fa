"""Simulated requests per second of one core.

    python benchmarks/simulator_speed.py [--requests FILE]

FILE has the columns arrival_s,prompt_tokens,output_tokens. Without it the traffic is made up. Each way runs several
times and the fastest counts; both the wall and the CPU time of the process are shown, because other processes on
a busy machine stretch the first. What numba compiles on its first call is not counted.

engines    engines, router and scrape stops alone, every 5 s: the kernel
run        a whole `simulate` with a fixed shape: scrapes, histograms and judging included
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from paceline.planner import Goal, Shape
from paceline.simulator.core.generators import generate
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.traffic_files import read_requests
from paceline.simulator.core.world import World, WorldSettings
from paceline.simulator.policies.shapes import Still
from paceline.simulator.simulation import Setting, simulate
from paceline_core.latency import LatencyTarget, Targets
from paceline_core.timing import StepTiming
from paceline_core.timing_tables import load_table

CASES = (
    ("llama-3.1-8b", "bf16", "h100", Shape(tensor_parallel_size=1, replicas=1)),
    ("llama-3.1-8b", "bf16", "h100", Shape(tensor_parallel_size=1, replicas=4)),
    ("llama-3.1-70b", "fp8", "h200", Shape(tensor_parallel_size=4, replicas=2)),
)


class _Scraped(Still):
    """Looks at nothing, as `Still`, but is scraped as others are."""

    reads_scrapes = True


def _engines(traffic: Traffic, timing: dict[int, StepTiming], shape: Shape) -> None:
    settings = WorldSettings(timing=timing, max_gpus=16, start_s=60.0)
    world = World(traffic, settings, first=shape, seed=0)
    while not world.idle:
        world.advance(world.now_s + 5.0)


def _run(traffic: Traffic, timing: dict[int, StepTiming], shape: Shape) -> None:
    target = LatencyTarget(
        name="all", max_prompt_tokens=None, ttft_ms=1000, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=50
    )
    goal = Goal(
        targets=Targets(classes=(target,)),
        objective=0.99,
        allowed_tensor_parallel_sizes=tuple(timing),
        min_replicas=1,
        max_replicas=16,
    )
    setting = Setting(timing=timing, goal=goal, max_gpus=16, start_s=60.0)
    simulate(traffic, setting, _Scraped(shape), first=shape, seed=0)


def _fastest(work: Callable[[], None], *, repeats: int) -> tuple[float, float]:
    """Wall and CPU seconds."""
    work()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


@click.command()
@click.option("--requests", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--repeats", default=5, show_default=True)
def main(requests: Path | None, repeats: int) -> None:
    traffic = (
        read_requests(requests)
        if requests is not None
        else generate("steady", {"rate": 5.5, "hours": 1.0}, seed=0)
    )
    click.echo(f"{len(traffic):,} requests")
    click.echo(f"{'model':14} {'shape':8} {'part':8} {'per s (wall)':>13} {'per s (CPU)':>13}")
    for model, format_, gpu, shape in CASES:
        timing = dict(load_table(model, format_, gpu).by_tensor_parallel_size)
        for name, work in (("engines", _engines), ("run", _run)):
            wall_s, cpu_s = _fastest(partial(work, traffic, timing, shape), repeats=repeats)
            shown = f"{shape.replicas}×TP{shape.tensor_parallel_size}"
            click.echo(
                f"{model:14} {shown:8} {name:8} {len(traffic) / wall_s:13,.0f} {len(traffic) / cpu_s:13,.0f}"
            )


if __name__ == "__main__":
    main()
