"""What the planner decides in three simulated services, and how long it takes to: for a change that must change nothing.

    python -m benchmarks.planner_decisions before.jsonl                            before the change
    python -m benchmarks.planner_decisions after.jsonl --against before.jsonl      after it

A line a look: what was seen, and the whole decision with its candidates and the state carried on. `--against` says how
far the figures of the two files are apart, and fails where anything else differs; fields that one revision does not know
are named and left out. Simulated. The times on the screen are
CPU times of this process; the decisions are repeated, and the fastest counts for each look.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import click
import numpy as np

from paceline.planner import (
    Goal,
    Observation,
    Planner,
    PlannerSettings,
    PlannerState,
    Shape,
    decision_to_json,
    observation_to_json,
)
from paceline.simulator.core.generators import GENERATORS, generate
from paceline.simulator.core.scrapes import Scrapes
from paceline.simulator.core.world import World
from paceline.simulator.policies.seen import observation_of
from paceline.simulator.policies.shapes import PLANNER_PERIOD_S
from paceline.simulator.service import service_of
from paceline.simulator.simulation import Setting, simulate
from paceline.simulator.written_values import parse_scenario, parse_slo

_SERVICES = (
    "diurnal:low=1,high=12,hours=2,period_hours=2",
    "burst:rate=3,times=3,hours=2",
    "mix-shift:rate=3,hours=2,long_share=0.2,phases=2",
)


class _Recorder:
    """Paceline's planner with every look written down."""

    period_s = PLANNER_PERIOD_S
    reads_scrapes = True

    def __init__(self, planner: Planner, file: TextIO) -> None:
        self._planner = planner
        self._file = file
        self._state = PlannerState()
        self.seen: list[Observation] = []
        self.seeing_s: list[float] = []

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape:
        began_s = time.process_time()
        seen = observation_of(world, scrapes, goal=goal)
        self.seeing_s.append(time.process_time() - began_s)
        decision = self._planner.decide(seen, self._state)
        self.seen.append(seen)
        self._state = decision.state
        self._file.write(f'{{"seen":{observation_to_json(seen)},"decided":{decision_to_json(decision)}}}\n')
        return decision.shape


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--candidates", default=64, show_default=True, help="Listed in a decision; simulations list 1.")
@click.option(
    "--against", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Another such file."
)
@click.option("--repeats", default=3, show_default=True)
def main(output: Path, candidates: int, against: Path | None, repeats: int) -> None:
    service = service_of(
        model="llama-3.1-70b",
        format="fp8",
        gpu="h200",
        sizes=(1, 2, 4, 8),
        max_gpus=64,
        slo=parse_slo("ttft=500ms,tpot=50ms,objective=99", option="--slo"),
    )
    setting = Setting(timing=service.timing, goal=service.goal, max_gpus=service.max_gpus, start_s=120.0)
    with output.open("w", encoding="utf-8") as file:
        for written in _SERVICES:
            name, numbers = parse_scenario(written, option="scenario", known=tuple(GENERATORS))
            traffic = generate(name, numbers, seed=0)
            settings = PlannerSettings(max_candidates=candidates)
            recorder = _Recorder(Planner(timing=service.timing, settings=settings), file)
            first = service.first_shape(traffic, service.careful_size(traffic))
            simulate(traffic, setting, recorder, first=first, seed=0)
            took_s = [
                _decided_s(Planner(timing=service.timing, settings=settings), recorder.seen)
                for _ in range(repeats)
            ]
            click.echo(
                f"{name:10} {len(recorder.seen)} looks: seen in {_shown(recorder.seeing_s)}, "
                f"decided in {_shown(np.min(took_s, axis=0))}"
            )
    if against is not None:
        _compare(output, against)


def _compare(output: Path, against: Path) -> None:
    looks = [
        output.read_text(encoding="utf-8").splitlines(),
        against.read_text(encoding="utf-8").splitlines(),
    ]
    if len(looks[0]) != len(looks[1]):
        raise click.ClickException(f"{len(looks[0])} looks against {len(looks[1])}")
    same, most, unshared = 0, 0.0, set[str]()
    for number, (one, other) in enumerate(zip(*looks, strict=True), start=1):
        if one == other:
            same += 1
            continue
        read = json.loads(one), json.loads(other)
        apart = _apart(*read)
        if apart == math.inf:
            raise click.ClickException(f"look {number} differs in more than figures")
        most = max(most, apart)
        unshared |= set(_unshared(*read, within=""))
    if unshared:
        click.echo(f"left out, as one file lacks them: {', '.join(sorted(unshared))}")
    click.echo(f"{len(looks[0])} looks, {same} the same byte for byte; figures are at most {most:.1g} apart")


def _unshared(one: Any, other: Any, *, within: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        yield from (f"{within}{key}" for key in one.keys() ^ other.keys())
        for key in one.keys() & other.keys():
            yield from _unshared(one[key], other[key], within=f"{within}{key}.")
    elif isinstance(one, list) and isinstance(other, list):
        for left, right in zip(one, other, strict=False):
            yield from _unshared(left, right, within=within)


def _apart(one: Any, other: Any) -> float:
    """The most that any figure differs, as a share of itself where it is above 1; infinite where anything else does."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(abs(one), abs(other), 1.0)
    if isinstance(one, dict) and isinstance(other, dict):
        return max((_apart(one[key], other[key]) for key in one.keys() & other.keys()), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((_apart(left, right) for left, right in zip(one, other, strict=True)), default=0.0)
    return 0.0 if one == other else math.inf


def _decided_s(planner: Planner, looks: Sequence[Observation]) -> list[float]:
    state, took_s = PlannerState(), []
    for seen in looks:
        began_s = time.process_time()
        state = planner.decide(seen, state).state
        took_s.append(time.process_time() - began_s)
    return took_s


def _shown(took_s: Sequence[float]) -> str:
    took_ms = np.array(took_s) * 1e3
    return f"{took_ms.mean():.2f} ms (p50 {np.median(took_ms):.2f}, p99 {np.quantile(took_ms, 0.99):.1f})"


if __name__ == "__main__":
    main()
