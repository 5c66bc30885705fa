"""`paceline explain NAME`: the last decisions on a service, with what was seen, weighed and left out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from paceline.cli.cluster_reader import cluster_reader, namespace_of, options
from paceline.controller.decision_record import candidates_of, observation_of
from paceline.controller.resources import CHILD_OF_KIND, INFERENCE_SERVICE
from paceline.fleet.decisions_config import DECISIONS, decisions_name
from paceline.planner import Candidate, Figure, Observation


@click.command("explain")
@click.argument("name")
@options
@click.option(
    "--last",
    type=click.IntRange(1, 10),
    default=3,
    show_default=True,
    help="So many decisions, newest first.",
)
@click.option("--json", "as_json", is_flag=True, help="The decisions as they are kept.")
def explain_command(
    *,
    name: str,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    last: int,
    as_json: bool,
) -> None:
    """Why the service NAME has the shape that it has: the planner's last decisions, the candidates that it
    weighed, what it predicted for each, and what limits it."""
    where = namespace or namespace_of(kubeconfig=kubeconfig, context=context)
    service, records = asyncio.run(_read(name, where, kubeconfig=kubeconfig, context=context))
    if as_json:
        click.echo(json.dumps(records[:last], indent=2))
        return
    for line in explanation(service, records[:last]):
        click.echo(line)


async def _read(
    name: str, namespace: str, *, kubeconfig: Path | None, context: str | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    async with cluster_reader(kubeconfig=kubeconfig, context=context) as cluster:
        service = await cluster.get(INFERENCE_SERVICE, namespace=namespace, name=name)
        if service is None:
            raise click.ClickException(f"no InferenceService {name} in namespace {namespace}")
        config = await cluster.get(CHILD_OF_KIND["ConfigMap"], namespace=namespace, name=decisions_name(name))
    return service, json.loads(((config or {}).get("data") or {}).get(DECISIONS, "[]"))


def explanation(service: Mapping[str, Any], records: list[dict[str, Any]]) -> Iterator[str]:
    """What the command prints, line by line."""
    status = service.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    scaling = service["spec"]["scaling"]
    desired = (status.get("shape") or {}).get("desired")
    yield f"{service['metadata']['name']}: {scaling.get('mode', 'Manual')}, {_shape(desired)}"
    for kind in ("ScalingActive", "MetricsAvailable", "SLOMet", "Feasible", "Transitioning"):
        if (one := conditions.get(kind)) is not None:
            yield f"  {kind:<17} {one['status']:<8} {one.get('message', '')}"
    for refused in status.get("refusedShapes") or ():
        yield f"  not before {refused['until']}: {_shape(refused)} ({refused['reason']})"
    if (slow := status.get("lastStraggler")) is not None:
        yield f"  {slow['at']}: {slow['message']}"
    if not records:
        yield ""
        yield "Nothing has been decided yet."
    for record in records:
        yield ""
        yield from _decision(record)


def _decision(record: Mapping[str, Any]) -> Iterator[str]:
    before, after = record.get("before"), record["shape"]
    change = _shape(after) if before == after else f"{_shape(before)} -> {_shape(after)}"
    verb = "would take " if record.get("mode") == "Advisory" else ""
    yield f"{record['at']}  {verb}{change}  {record['reason']}"
    yield f"  {record['message']}"
    yield from (f"  {line}" for line in _seen(observation_of(record)))
    limit = record.get("limit")
    yield (
        f"  limit: {'none' if limit in (None, 'None') else limit}; confidence of the model: "
        f"{record.get('confidence', 0):.2f}"
    )
    candidates = candidates_of(record)
    if candidates:
        yield f"  {'candidate':<12}{'GPUs':>5}{'attainment':>12}{'TTFT p99':>10}{'TPOT p99':>10}{'used':>7}"
    for one in candidates:
        yield f"  {_row(one)}"
    for sentence in record.get("wouldChange") or ():
        yield f"  would change: {sentence}"


def _seen(seen: Observation) -> Iterator[str]:
    traffic = seen.traffic
    parts = [f"{_figure(traffic.requests_per_s, '{:.2f}')} requests/s"]
    if traffic.prompt is not None:
        parts.append(f"prompts of {traffic.prompt.mean_tokens:.0f} tokens")
    if traffic.output is not None:
        parts.append(f"answers of {traffic.output.mean_tokens:.0f}")
    yield f"seen: {', '.join(parts)}; attainment {_figure(seen.attainment, '{:.2%}')}"
    for group in seen.groups:
        yield (
            f"      TP{group.tensor_parallel_size}: {group.ready} ready, {group.starting} starting, "
            f"{group.draining} draining; running {_figure(group.running, '{:.0f}')}, waiting "
            f"{_figure(group.waiting, '{:.0f}')}, TTFT p99 {_figure(group.time_to_first_token.p99_s, '{:.3f}')} s, "
            f"TPOT p99 {_figure(group.time_per_output_token.p99_s, '{:.4f}')} s"
        )
    free = sum(one.count * one.free for one in seen.nodes)
    total = sum(one.count * one.total for one in seen.nodes)
    yield f"      {free} of {total} GPUs free on {sum(one.count for one in seen.nodes)} nodes"
    for note in seen.notes:
        yield f"      {note}"


def _figure(figure: Figure, form: str) -> str:
    if figure.value is None:
        return f"unknown ({figure.trust})"
    text = form.format(figure.value)
    return text if figure.trust == "Fresh" else f"{text} ({figure.trust})"


def _row(one: Candidate) -> str:
    predicted = one.prediction
    mark = "*" if one.rejected is None else " "
    shape = f"{mark} {one.shape.replicas}xTP{one.shape.tensor_parallel_size}"
    return (
        f"{shape:<12}{one.gpus:>5}{predicted.attainment:>11.2%} {_ms(predicted.ttft_p99_s):>10}"
        f"{_ms(predicted.tpot_p99_s):>10}{predicted.utilization:>7.0%}  {one.rejected or 'chosen'}"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 100 else "-"


def _shape(shape: Mapping[str, Any] | None) -> str:
    return f"{shape['replicas']}xTP{shape['tensorParallelSize']}" if shape else "no shape"
