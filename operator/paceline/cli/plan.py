"""`paceline plan -f FILE`: what the operator would do now with this manifest, on the cluster as it is.

It reads the cluster, asks the same planner and the same fleet as the operator, prints their answer and
writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click

from paceline.api import InferenceService
from paceline.cli.cluster_reader import cluster_reader, namespace_of, options
from paceline.cli.local_service import CannotServeHere, read_manifest
from paceline.cli.sight import Asked, Sight, ask, look, metrics_source
from paceline.controller import planning
from paceline.fleet import Images, Observed, Plan, Settings, plan
from paceline.fleet.advice import Advice
from paceline.fleet.autoscaling import said
from paceline.fleet.shape import desired_shape
from paceline.fleet.variant import observed_variants
from paceline.planner import Decision, PlannerState

_SETTINGS = Settings(
    images=Images(runtime_gpu="", runtime_cpu="", emulator="", router=""),
    operator_version=version("paceline"),
    operator_namespace="",
)
"""Images and neighbours of an installation are not known here, and no engine's shape depends on them."""

Requests = Mapping[str, Mapping[str, float]]


@click.command("plan")
@click.option(
    "-f",
    "--filename",
    "manifest",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with one InferenceService.",
)
@options
@click.option(
    "--prometheus-url",
    help="Where metrics are read, as the operator does. Not given: the planner is not asked anew.",
)
def plan_command(
    *,
    manifest: Path,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    prometheus_url: str | None,
) -> None:
    """What the operator would do now with the manifest in FILE: the shape, and the changes of engine pods.
    Nothing is written."""
    try:
        service = read_manifest(manifest.read_text(encoding="utf-8"))
    except CannotServeHere as error:
        raise click.ClickException(str(error)) from error
    explicit = "namespace" in service.metadata.model_fields_set
    where = namespace or (
        service.metadata.namespace if explicit else namespace_of(kubeconfig=kubeconfig, context=context)
    )
    for line in asyncio.run(
        _plan(service, where, kubeconfig=kubeconfig, context=context, prometheus_url=prometheus_url)
    ):
        click.echo(line)


async def _plan(
    service: InferenceService,
    namespace: str,
    *,
    kubeconfig: Path | None,
    context: str | None,
    prometheus_url: str | None,
) -> list[str]:
    async with cluster_reader(kubeconfig=kubeconfig, context=context) as cluster:
        sight = await look(cluster, service, namespace)
    decision: Decision | None = None
    if prometheus_url is not None:
        async with metrics_source(prometheus_url) as source:
            asked = await ask(sight, source)
        if asked is not None:
            sight, decision = _advised(sight, asked)
    made = plan(sight.observed, settings=_SETTINGS)
    return list(report(sight.observed, made, is_live=sight.is_live, decision=decision))


def _advised(sight: Sight, asked: Asked) -> tuple[Sight, Decision]:
    """The same, with the planner's advice of this moment."""
    observed = sight.observed
    decision = asked.planner.decide(asked.observation, sight.state or PlannerState())
    advice = Advice(
        made_at_s=observed.now_s,
        generation=observed.meta.generation,
        metrics=planning.metrics_word(asked.metrics),
        choice=planning.choice_of(decision, seen=asked.standing),
    )
    return replace(sight, observed=replace(observed, advice=advice)), decision


def report(observed: Observed, made: Plan, *, is_live: bool, decision: Decision | None) -> Iterator[str]:
    """What the command prints, line by line."""
    variants = observed_variants(observed)
    shape, mode = desired_shape(observed, variants), observed.service.spec.scaling.mode
    yield f"{observed.meta.name} in namespace {observed.meta.namespace}: {mode}, {said(shape)}"
    if decision is not None:
        decided = planning.fleet_shape(decision.shape)
        yield f"  the planner: {said(decided)}, {decision.reason}: {decision.message}"
    if not shape.replicas:
        yield f"  at zero: a request that a gate holds starts one replica of TP{shape.tensor_parallel_size}"
    if not is_live:
        yield "  the service is not there yet"
    changes = list(_changes(observed, made))
    for number, change in enumerate(changes, start=1):
        yield f"  {number}. {change}"
    if not changes:
        yield "  nothing of the engines changes"
    for condition in made.status.conditions:
        bad = {"Ready": "False", "Feasible": "False", "CapacityAvailable": "False", "ForeignWriter": "True"}
        if bad.get(condition.type) == condition.status:
            yield f"  {condition.type} {condition.status}: {condition.message}"


def _changes(observed: Observed, made: Plan) -> Iterator[str]:
    new = 0
    for action in made.apply:
        live = observed.children.get((action.kind, action.name))
        if action.kind != "Deployment":
            new += live is None
            continue
        replicas = action.object["spec"].get("replicas")
        if live is None:
            yield f"create Deployment {action.name} with {replicas} replicas"
        elif replicas is not None and replicas != live["spec"].get("replicas"):
            yield f"Deployment {action.name}: {live['spec'].get('replicas')} to {replicas} replicas"
    for gone in made.delete:
        yield f"delete {gone.kind} {gone.name}"
    if new:
        yield f"create {new} objects around them"
