"""The ConfigMap with the targets that engines and gates count requests against, which they re-read when it changes, and
with what an engine which starts is held against.
"""

from __future__ import annotations

import json
from typing import Any

from paceline.api import InferenceService
from paceline.fleet.canary import KEY as CANARY_KEY
from paceline.fleet.names import ENGINE, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference
from paceline_core import Reference


def slo_config(service: InferenceService, *, meta: ServiceMeta, canary: Reference | None) -> dict[str, Any]:
    names = Names(meta.name)
    data = {"targets.json": service.spec.slo.targets().to_json()}
    if canary is not None:
        data[CANARY_KEY] = json.dumps(canary.to_json())
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.slo,
            "namespace": meta.namespace,
            "labels": names.labels(ENGINE),
            "ownerReferences": [owner_reference(meta)],
        },
        "data": data,
    }
