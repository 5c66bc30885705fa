"""The ConfigMap with the targets that engines and gates count requests against; they re-read it when it
changes.
"""

from __future__ import annotations

from typing import Any

from paceline.api import InferenceService
from paceline.fleet.names import ENGINE, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference


def slo_config(service: InferenceService, *, meta: ServiceMeta) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.slo,
            "namespace": meta.namespace,
            "labels": names.labels(ENGINE),
            "ownerReferences": [owner_reference(meta)],
        },
        "data": {"targets.json": service.spec.slo.targets().to_json()},
    }
