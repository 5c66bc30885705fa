"""The PodMonitor by which a prometheus-operator finds the pods of a service, if it is wanted and known."""

from __future__ import annotations

from typing import Any

from paceline.api import InferenceService
from paceline.fleet.names import (
    LABEL_SERVICE,
    LABEL_TENSOR_PARALLEL_SIZE,
    LABEL_VARIANT,
    ROUTER,
    Names,
)
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference
from paceline.fleet.settings import Settings


def wants_pod_monitor(service: InferenceService, *, settings: Settings) -> bool:
    match service.spec.observability.pod_monitor:
        case "Enabled":
            return True
        case "Auto":
            return settings.pod_monitor_available
        case "Disabled":
            return False


def pod_monitor(service: InferenceService, *, meta: ServiceMeta, settings: Settings) -> dict[str, Any]:
    names = Names(meta.name)
    interval = f"{service.spec.observability.scrape_interval_seconds}s"
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {
            "name": names.service,
            "namespace": meta.namespace,
            "labels": {**settings.pod_monitor_labels, **names.labels(ROUTER)},
            "ownerReferences": [owner_reference(meta)],
        },
        "spec": {
            "selector": {"matchLabels": {LABEL_SERVICE: names.service}},
            "podTargetLabels": [LABEL_SERVICE, LABEL_VARIANT, LABEL_TENSOR_PARALLEL_SIZE],
            # `http` is the engine's port, `ops` the gate's; each exists in one of the two kinds of pods only.
            "podMetricsEndpoints": [
                {"port": "http", "path": "/metrics", "interval": interval},
                {"port": "ops", "path": "/metrics", "interval": interval},
            ],
        },
    }
