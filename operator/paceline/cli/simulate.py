"""`paceline simulate`: one policy on one traffic, in simulated time; what it cost and what it missed as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paceline.cli.simulator_extra import needs_simulator

if TYPE_CHECKING:
    from paceline.simulator.core.traffic import Traffic
    from paceline.simulator.simulation import Run

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)

DEFAULT_SYNTHETIC = "diurnal:high=8,hours=6,period_hours=6"


@click.command("simulate")
@click.option("--requests", type=_FILE, help="CSV: arrival_s,prompt_tokens,output_tokens.")
@click.option("--rate", type=_FILE, help="CSV: t_s,requests_per_s. Arrivals are drawn from it.")
@click.option("--lengths", type=_FILE, help="With --rate: a file as for --requests, whose lengths are drawn.")
@click.option(
    "--synthetic",
    metavar="NAME[:KEY=VALUE,…]",
    help="Made-up traffic: steady, steps, ramp, diurnal, burst, mix-shift or flash-drop, such as "
    f"{DEFAULT_SYNTHETIC}.",
)
@click.option(
    "--scale", type=float, default=1.0, show_default=True, help="Of the rate; time is not stretched."
)
@click.option(
    "--rate-noise",
    type=click.FloatRange(0.0, 20.0),
    default=0.0,
    show_default=True,
    help="Added to the count of each minute of --rate, in square roots of its mean: 4 where a real rate was "
    "read off a figure.",
)
@click.option(
    "--from-hours", type=float, default=0.0, show_default=True, help="Where in the traffic the run begins."
)
@click.option("--hours", type=float, help="How much of the traffic is run. Not given: to its end.")
@click.option("--model", default="llama-3.1-70b", show_default=True)
@click.option("--format", "format_", default="fp8", show_default=True)
@click.option("--gpu", default="h200", show_default=True)
@click.option("--tp", default="1,2,4,8", show_default=True, help="Allowed tensor-parallel sizes.")
@click.option("--max-gpus", type=int, default=64, show_default=True)
@click.option("--slo", default="ttft=1s,tpot=50ms,objective=99", show_default=True)
@click.option("--policy", default="paceline", show_default=True)
@click.option("--start-time", default="120s", show_default=True, help="From a pod's creation to Ready.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--oracle/--no-oracle", default=True, show_default=True, help="Compute the bound, for the regret."
)
@click.option("--json", "json_out", type=_OUT, help="Where to write the summary. Not given: to the screen.")
@click.option("--plot", type=_OUT, help="Where to draw the run, as PNG.")
def simulate_command(**given: Any) -> None:
    """Run a policy on traffic, against a model of the GPUs. Nothing is measured: all figures are simulated."""
    with needs_simulator():
        from paceline.simulator.core.traffic_files import UnreadableTraffic
        from paceline.simulator.policies.named import NAMES
        from paceline.simulator.written_values import WrittenWrong
    try:
        if given["policy"] not in NAMES:
            raise WrittenWrong(
                "--policy", f"{given['policy']!r} is not known: write one of {', '.join(sorted(NAMES))}"
            )
        traffic = _traffic(given)
        summary = _run(given, traffic)
    except (WrittenWrong, UnreadableTraffic) as error:
        raise click.ClickException(str(error)) from error
    text = json.dumps(summary, indent=2)
    if given["json_out"] is not None:
        given["json_out"].write_text(text + "\n", encoding="utf-8")
    click.echo(text if given["json_out"] is None else _line(given, summary))


def _traffic(given: dict[str, Any]) -> Traffic:
    from paceline.simulator.traffic_source import TrafficSource

    names = ("requests", "rate", "lengths", "synthetic", "rate_noise", "from_hours", "hours", "scale")
    wanted = {name: given[name] for name in names}
    if all(given[name] is None for name in ("requests", "rate", "synthetic")):
        wanted["synthetic"] = DEFAULT_SYNTHETIC
    return TrafficSource(**wanted).read(seed=given["seed"])


def _run(given: dict[str, Any], traffic: Traffic) -> dict[str, Any]:
    from paceline.simulator.hindsight import run_named
    from paceline.simulator.oracle.optimum import optimum_of
    from paceline.simulator.oracle.problem import NoPlan
    from paceline.simulator.service import service_of
    from paceline.simulator.simulation import Setting
    from paceline.simulator.written_values import parse_duration_s, parse_sizes, parse_slo

    service = service_of(
        model=given["model"],
        format=given["format_"],
        gpu=given["gpu"],
        sizes=parse_sizes(given["tp"], option="--tp"),
        max_gpus=given["max_gpus"],
        slo=parse_slo(given["slo"], option="--slo"),
    )
    setting = Setting(
        timing=service.timing,
        goal=service.goal,
        max_gpus=service.max_gpus,
        start_s=parse_duration_s(given["start_time"], option="--start-time"),
    )
    bound = None
    if given["oracle"] and len(traffic):
        click.echo("measuring the optimum's curves, unless they are in the cache", err=True)
        try:
            bound = optimum_of(
                traffic,
                service,
                setting,
                objective=service.slo.objective,
                seed=given["seed"],
                certify=False,
            ).bound.gpu_hours
        except NoPlan as error:
            click.echo(f"no bound: {error}", err=True)
    done = 0
    with click.progressbar(length=100, label="simulating", file=sys.stderr) as bar:

        def tell(share: float) -> None:
            nonlocal done
            bar.update(int(100 * share) - done)
            done = int(100 * share)

        run = run_named(given["policy"], traffic, service, setting, seed=given["seed"], tell=tell)
        tell(1.0)
    if given["plot"] is not None:
        _plot(given, traffic, run)
    return run.summary(objective=service.slo.objective, oracle_gpu_hours=bound).to_dict()


def _plot(given: dict[str, Any], traffic: Traffic, run: Run) -> None:
    import numpy as np

    from paceline.simulator.benchmark.plots import FleetTrace, plot_timeline
    from paceline.simulator.summary import Windows

    window_s = max(60.0, traffic.end_s / 600)
    counted = np.bincount((traffic.arrival_s // window_s).astype(int))
    windows = Windows.of(run.outcomes, window_s=window_s)
    plot_timeline(
        given["plot"],
        title=f"{given['policy']}: {given['model']} {given['format_']} on {given['gpu']}, simulated",
        rate_at_s=[i * window_s for i in range(len(counted))],
        requests_per_s=(counted / window_s).tolist(),
        fleets={
            given["policy"]: FleetTrace(
                at_s=[*run.gpu_trace.at_s, run.end_s],
                gpus=[*run.gpu_trace.gpus, run.gpu_trace.gpus[-1]],
                tensor_parallel_sizes=[*run.gpu_trace.sizes, run.gpu_trace.sizes[-1]],
            )
        },
        missed_at_s=windows.start_s.tolist(),
        missed_share=(1 - windows.attainment).tolist(),
    )


def _line(given: dict[str, Any], summary: dict[str, Any]) -> str:
    attained = summary["attainment"]
    shown = "no requests" if attained is None else f"{100 * attained:.2f} % of {summary['requests']} requests"
    regret = f", {summary['regret']:.2f} times the bound" if summary["regret"] else ""
    return f"{given['policy']}: {shown} met their targets at {summary['gpu_hours']:.2f} GPU-hours{regret} (simulated)"
