"""What the commands see of one service: the cluster, its metrics, and what the planner would be asked.

Shared by `plan`, `record` and `replay`. It reads and never writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from paceline.api import InferenceService, InferenceServiceStatus, Shape
from paceline.cli.cluster_reader import ClusterReader
from paceline.controller import planning
from paceline.controller.decision_record import state_of
from paceline.controller.planners import Planners, SizedPlanner
from paceline.controller.resources import (
    CHILD_OF_KIND,
    INFERENCE_SERVICE,
    NODE,
    POD,
    RESOURCE_QUOTA,
    SERVICE_LABEL,
)
from paceline.controller.start_times import StartTimes
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Node, Observed, Pod, ServiceMeta
from paceline.fleet.decisions_config import STATE, decisions_name
from paceline.fleet.in_place import told_variants
from paceline.fleet.inventory import requests_of
from paceline.fleet.shape import standing_shape
from paceline.fleet.timestamps import rfc3339
from paceline.metrics import (
    MetricsSettings,
    MetricsSource,
    PrometheusSettings,
    ServiceFacts,
    ServiceMetrics,
)
from paceline.planner import Observation, PlannerState

Requests = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    observed: Observed
    requested: Requests
    quotas: Sequence[Mapping[str, Any]]
    is_live: bool
    state: PlannerState | None
    start_seconds: Mapping[str, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the planner would be asked now."""

    planner: SizedPlanner
    observation: Observation
    metrics: ServiceMetrics
    standing: Shape


@asynccontextmanager
async def metrics_source(prometheus_url: str) -> AsyncIterator[MetricsSource]:
    source = MetricsSource(MetricsSettings(prometheus=PrometheusSettings(url=prometheus_url)))
    try:
        yield source
    finally:
        await source.close()


async def ask(sight: Sight, source: MetricsSource) -> Asked | None:
    """None where the planner has no say, at zero too, does not know the model, or would have to be told by a pod what
    it serves in: the command asks none."""
    observed = sight.observed
    standing = standing_shape(observed, told_variants(observed))
    if not planning.decides(observed) or standing is None or not standing.replicas:
        return None
    if planning.unheard_layout(observed) is not None:
        return None
    key = ServiceKey(observed.meta.namespace, observed.meta.name)
    planner = Planners().of(key, observed)
    if planner is None:
        return None
    metrics = (await source.collect({key: ServiceFacts(pods=observed.pods)}))[key]
    starts = StartTimes()
    starts.restore(key, sight.start_seconds)
    observation = planning.observation_of(
        observed,
        metrics,
        standing=standing,
        possible=planner.sizes,
        nodes=planning.inventory(observed, requested=sight.requested),
        quotas=sight.quotas,
        start_times=starts.of(key),
    )
    return Asked(planner=planner, observation=observation, metrics=metrics, standing=standing)


async def look(cluster: ClusterReader, service: InferenceService, namespace: str) -> Sight:
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
        quotas=await cluster.list(RESOURCE_QUOTA, namespace=namespace),
        is_live=live is not None,
        state=state_of(memory.get("planner")),
        start_seconds=memory.get("startSeconds") or {},
    )


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
