"""`python -m e2e.replay`: make the traffic, predict, draw a run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from e2e.replay.prediction import Prediction
from e2e.replay.scene import SCENE
from e2e.replay.traffic import Recipe, Source, Unplayable, described, text_of, traffic_of
from paceline.simulator.core.traffic_files import UnreadableTraffic

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

_requests = click.option(
    "--requests", type=_FILE, help="CSV: arrival_s,prompt_tokens,output_tokens. Not given: made-up traffic."
)
_seed = click.option("--seed", type=int, default=Recipe().seed, show_default=True)
_rate = click.option(
    "--tokens-per-second", "tokens_per_s", type=float, default=Recipe().tokens_per_s, show_default=True
)


@click.group()
def main() -> None:
    """Forty minutes of traffic on the cluster, and what the simulator says of them."""


@main.command()
@_requests
@_seed
@_rate
@click.option("--out", type=_OUT, help="Where to write the requests.")
def traffic(requests: Path | None, seed: int, tokens_per_s: float, out: Path | None) -> None:
    """Say what would be played."""
    source, recipe = _asked(requests, seed, tokens_per_s)
    try:
        made = traffic_of(source, recipe)
    except Unplayable as error:
        raise click.ClickException(str(error)) from error
    click.echo(described(source, made, recipe))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text_of(made), encoding="utf-8")


@main.command()
@_requests
@_seed
@_rate
def predict(requests: Path | None, seed: int, tokens_per_s: float) -> None:
    """Simulate it, and write the prediction that the scenario compares with: commit it before the run."""
    from e2e.replay.simulated import predict as predicted

    source, recipe = _asked(requests, seed, tokens_per_s)
    try:
        found = predicted(source, recipe, SCENE, seed=seed)
    except Unplayable as error:
        raise click.ClickException(str(error)) from error
    click.echo(said(found))
    click.echo(f"written to {found.write()}: commit it before the run")


@main.command()
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_OUT, required=True, help="Where to draw the run, as PNG.")
def plot(folder: Path, out: Path) -> None:
    """Draw a run anew from the files that the scenario wrote into FOLDER."""
    from e2e.replay.played import Played
    from e2e.replay.plot import draw

    played = Played.read(folder)
    draw(out, played=played, prediction=Prediction.read(played.source))


def said(found: Prediction) -> str:
    """What is predicted, for people."""
    sizes = " → ".join(f"TP{size}" for size in found.tensor_parallel_sizes)
    shapes = ", ".join(f"{one.at_s:.0f} s {one.replicas}×TP{one.tensor_parallel_size}" for one in found.asked)
    least, most = found.gpus_between
    return (
        f"{100 * found.attainment:.2f} % of {found.requests} requests attain their targets (simulated), "
        f"{found.failed} fail; {found.gpus:.2f} GPUs in the mean ({least:.2f} to {most:.2f}, by the second of the look); "
        f"{sizes}\n{shapes}"
    )


def _asked(requests: Path | None, seed: int, tokens_per_s: float) -> tuple[Source, Recipe]:
    try:
        source = Source.of(requests)
    except UnreadableTraffic as error:
        raise click.ClickException(str(error)) from error
    return source, replace(Recipe(), seed=seed, tokens_per_s=tokens_per_s)


if __name__ == "__main__":
    main()
