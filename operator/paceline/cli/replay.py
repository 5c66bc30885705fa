"""`paceline replay FILE`: recorded looks, shown again to the planner of this version.

To see what another version, or another prior, would have decided in the same situation. The recorded cluster
does not follow those decisions: each look is answered as it was, so the answers are to be read one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from paceline.controller.decision_record import observation_from_plain
from paceline.fleet.timestamps import rfc3339
from paceline.planner import Decision, Observation, Planner, PlannerState
from paceline_core import StepTiming


@click.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--timing-scale",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    help="The GPU's time in the planner's prior, multiplied by this.",
)
@click.option("--all", "every", is_flag=True, help="Every look, not only those with another decision.")
def replay_command(*, file: Path, timing_scale: float, every: bool) -> None:
    """Show the looks in FILE (of `paceline record`) to this version's planner and print what it decides."""
    lines = file.read_text(encoding="utf-8").splitlines()
    try:
        head = json.loads(lines[0])
        timing = {int(size): _step(step) for size, step in head["timing"].items()}
        looks = [observation_from_plain(json.loads(line)) for line in lines[1:]]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise click.ClickException(f"{file} is not a file of `paceline record`: {error}") from error
    planner = Planner(timing={size: step.corrected(scale=timing_scale) for size, step in timing.items()})
    for line in replayed(planner, looks, every=every):
        click.echo(line)


def replayed(planner: Planner, looks: list[Observation], *, every: bool) -> Iterator[str]:
    state, last = PlannerState(), None
    yield f"{'time':<21}{'requests/s':>11}  {'had':<9}{'decided':<9}{'reason':<26}message"
    for look in looks:
        decision = planner.decide(look, state)
        state = decision.state
        said = (decision.shape, decision.reason)
        if every or said != last:
            yield _row(look, decision)
        last = said


def _row(look: Observation, decision: Decision) -> str:
    rate, had = look.traffic.requests_per_s.fresh, look.current
    return (
        f"{rfc3339(look.now_s):<21}{'-' if rate is None else f'{rate:.2f}':>11}  "
        f"{'-' if had is None else f'{had.replicas}xTP{had.tensor_parallel_size}':<9}"
        f"{decision.shape.replicas}xTP{decision.shape.tensor_parallel_size:<{9 - 3 - len(str(decision.shape.replicas))}}"
        f"{decision.reason:<26}{decision.message}"
    )


def _step(plain: Mapping[str, Any]) -> StepTiming:
    return StepTiming(
        **{**plain, "knot_tokens": tuple(plain["knot_tokens"]), "knot_s": tuple(plain["knot_s"])}
    )
