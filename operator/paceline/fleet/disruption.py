"""PodDisruptionBudgets: voluntary evictions take engine and router pods a few at a time.

`maxUnavailable`, never `minAvailable`: with one replica the latter blocks a node drain for ever. Unhealthy
pods may always be evicted, because one that never becomes Ready would block it just the same. Fleet answers
a cordon with one more replica first (see `replicas`), so the one eviction that the budget lets through
costs no capacity.
"""

from __future__ import annotations

from typing import Any

from paceline.api import InferenceService
from paceline.fleet.names import ENGINE, ROUTER, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference


def engine_disruption_budget(service: InferenceService, *, meta: ServiceMeta) -> dict[str, Any]:
    return _budget(meta, component=ENGINE, max_unavailable=service.spec.disruption.max_unavailable)


def router_disruption_budget(meta: ServiceMeta) -> dict[str, Any]:
    return _budget(meta, component=ROUTER, max_unavailable=1)


def _budget(meta: ServiceMeta, *, component: str, max_unavailable: int | str) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": names.engine if component == ENGINE else names.router,
            "namespace": meta.namespace,
            "labels": names.labels(component),
            "ownerReferences": [owner_reference(meta)],
        },
        "spec": {
            "maxUnavailable": max_unavailable,
            "selector": {"matchLabels": names.selector(component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
