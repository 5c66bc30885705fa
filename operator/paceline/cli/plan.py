"""`paceline plan -f FILE`: what the operator would do now with this manifest, on the cluster as it is.

It reads the cluster, asks the same planner and the same fleet as the operator, prints their answer and
writes nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from paceline.api import InferenceService, InferenceServiceStatus
from paceline.cli.cluster_reader import ClusterReader, cluster_reader, namespace_of, options
from paceline.cli.local_service import CannotServeHere, read_manifest
from paceline.controller import planning
from paceline.controller.decision_record import state_of
from paceline.controller.planners import Planners
from paceline.controller.resources import CHILD_OF_KIND, INFERENCE_SERVICE, NODE, POD, SERVICE_LABEL
from paceline.controller.start_times import StartTimes
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Images, Node, Observed, Plan, Pod, ServiceMeta, Settings, plan
from paceline.fleet.advice import Advice
from paceline.fleet.autoscaling import said
from paceline.fleet.decisions_config import STATE, decisions_name
from paceline.fleet.inventory import requests_of
from paceline.fleet.shape import desired_shape, standing_shape
from paceline.fleet.timestamps import rfc3339
from paceline.fleet.variant import observed_variants
from paceline.metrics import MetricsSettings, MetricsSource, PrometheusSettings, ServiceFacts
from paceline.planner import Decision, PlannerState

_SETTINGS = Settings(
    images=Images(runtime_gpu="", runtime_cpu="", emulator="", router=""),
    operator_version=version("paceline"),
    operator_namespace="",
)
"""Images and neighbours of an installation are not known here, and no engine's shape depends on them."""

Requests = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    observed: Observed
    requested: Requests
    is_live: bool
    state: PlannerState | None
    start_seconds: Mapping[str, list[float]]


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
        sight = await _look(cluster, service, namespace)
    decision: Decision | None = None
    if prometheus_url is not None:
        sight, decision = await _advised(sight, prometheus_url)
    made = plan(sight.observed, settings=_SETTINGS)
    return list(report(sight.observed, made, is_live=sight.is_live, decision=decision))


async def _look(cluster: ClusterReader, service: InferenceService, namespace: str) -> Sight:
    name = service.metadata.name
    selector = f"{SERVICE_LABEL}={name}"
    live = await cluster.get(INFERENCE_SERVICE, namespace=namespace, name=name)
    children = {
        (resource.kind, one["metadata"]["name"]): one
        for resource in CHILD_OF_KIND.values()
        for one in await cluster.list(resource, namespace=namespace, selector=selector)
    }
    nodes = await cluster.list(NODE)
    pods = await cluster.list(POD)
    requested: dict[str, dict[str, float]] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            of_node = requested.setdefault(node, {})
            for resource_name, amount in requests_of(pod).items():
                of_node[resource_name] = of_node.get(resource_name, 0.0) + amount
    status = (live or {}).get("status")
    kept = (children.get(("ConfigMap", decisions_name(name))) or {}).get("data") or {}
    memory: dict[str, Any] = json.loads(kept.get(STATE, "{}"))
    observed = Observed(
        now_s=time.time(),
        service=service,
        meta=_meta_of(service, namespace) if live is None else _edited(live, service),
        status=InferenceServiceStatus.from_manifest(status) if status else None,
        children=children,
        pods=tuple(
            Pod.parse(one)
            for one in pods
            if one["metadata"]["namespace"] == namespace
            and (one["metadata"].get("labels") or {}).get(SERVICE_LABEL) == name
        ),
        nodes=tuple(Node.parse(one) for one in nodes),
    )
    return Sight(
        observed=observed,
        requested=requested,
        is_live=live is not None,
        state=state_of(memory.get("planner")),
        start_seconds=memory.get("startSeconds") or {},
    )


async def _advised(sight: Sight, prometheus_url: str) -> tuple[Sight, Decision | None]:
    """The same, with the planner's advice of this moment."""
    observed = sight.observed
    standing = standing_shape(observed, observed_variants(observed))
    if not planning.decides(observed) or standing is None:
        return sight, None
    key = ServiceKey(observed.meta.namespace, observed.meta.name)
    planner = Planners().of(key, observed)
    if planner is None:
        return sight, None
    source = MetricsSource(MetricsSettings(prometheus=PrometheusSettings(url=prometheus_url)))
    try:
        metrics = (await source.collect({key: ServiceFacts(pods=observed.pods)}))[key]
    finally:
        await source.close()
    starts = StartTimes()
    starts.restore(key, sight.start_seconds)
    observation = planning.observation_of(
        observed,
        metrics,
        standing=standing,
        timed=planner.sizes,
        nodes=planning.inventory(observed, requested=sight.requested, own={}),
        start_times=starts.of(key),
    )
    decision = planner.decide(observation, sight.state or PlannerState())
    advice = Advice(
        made_at_s=observed.now_s,
        generation=observed.meta.generation,
        metrics=planning.metrics_word(metrics),
        choice=planning.choice_of(decision, seen=standing),
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


def _edited(live: dict[str, Any], service: InferenceService) -> ServiceMeta:
    """An edit makes another generation: what was refused of the last one binds it no more."""
    meta = ServiceMeta.parse(live)
    before = InferenceService.from_manifest({key: value for key, value in live.items() if key != "status"})
    return meta if before.spec == service.spec else replace(meta, generation=meta.generation + 1)


def _meta_of(service: InferenceService, namespace: str) -> ServiceMeta:
    """Of a service that is not there yet."""
    return ServiceMeta.parse(
        {
            "metadata": {
                "name": service.metadata.name,
                "namespace": namespace,
                "uid": "",
                "generation": 1,
                "resourceVersion": "0",
                "creationTimestamp": rfc3339(time.time()),
            }
        }
    )
