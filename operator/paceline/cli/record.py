"""`paceline record NAME -o FILE`: what the planner would be shown, look after look, for `paceline replay`.

It sees what the operator sees: the cluster by the user's kubeconfig, and Prometheus. It decides nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import click

from paceline.api import InferenceService
from paceline.cli.cluster_reader import ClusterReader, cluster_reader, namespace_of, options
from paceline.cli.sight import Asked, ask, look, metrics_source
from paceline.controller.decision_record import plain_observation
from paceline.controller.resources import INFERENCE_SERVICE
from paceline.metrics import MetricsSource

VERSION = 1


@click.command("record")
@click.argument("name")
@options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--prometheus-url", required=True, help="Where metrics are read, as the operator does.")
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=600.0, show_default=True, help="How long, at most."
)
@click.option(
    "--period-seconds", type=click.FloatRange(min=1), default=15.0, show_default=True, help="Between looks."
)
def record_command(
    *,
    name: str,
    output: Path,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    prometheus_url: str,
    seconds: float,
    period_seconds: float,
) -> None:
    """Write what the planner would be shown of the service NAME (mode Auto or Advisory), one line a look, until
    the time is over or Ctrl-C."""
    where = namespace or namespace_of(kubeconfig=kubeconfig, context=context)

    async def record() -> int:
        with output.open("w", encoding="utf-8") as file:
            async with (
                cluster_reader(kubeconfig=kubeconfig, context=context) as cluster,
                metrics_source(prometheus_url) as source,
            ):
                end_s, looks = time.monotonic() + seconds, 0
                while True:
                    asked = await _ask(cluster, source, name=name, namespace=where)
                    _write(file, asked, is_first=looks == 0)
                    looks += 1
                    if time.monotonic() + period_seconds > end_s:
                        return looks
                    await asyncio.sleep(period_seconds)

    try:
        looks = asyncio.run(record())
    except KeyboardInterrupt:
        click.echo(f"ended; what was seen is in {output}")
        return
    click.echo(f"{looks} looks in {output}")


async def _ask(cluster: ClusterReader, source: MetricsSource, *, name: str, namespace: str) -> Asked:
    live = await cluster.get(INFERENCE_SERVICE, namespace=namespace, name=name)
    if live is None:
        raise click.ClickException(f"no InferenceService {name} in namespace {namespace}")
    asked = await ask(await look(cluster, _service_of(live), namespace), source)
    if asked is None:
        raise click.ClickException(
            f"the planner has no say in {name}: it is Manual, paused, overridden, at zero, has not served yet, no step "
            "times are known of its model, or its pods were changed in place and only the operator hears of their layout"
        )
    return asked


def _service_of(live: dict[str, Any]) -> InferenceService:
    return InferenceService.from_manifest({key: value for key, value in live.items() if key != "status"})


def _write(file: TextIO, asked: Asked, *, is_first: bool) -> None:
    if is_first:
        prior = asked.planner.prior
        timing = {str(size): asdict(step) for size, step in prior.timing.items()}
        file.write(json.dumps({"paceline": VERSION, "source": prior.source, "timing": timing}) + "\n")
    file.write(json.dumps(plain_observation(asked.observation)) + "\n")
    file.flush()
