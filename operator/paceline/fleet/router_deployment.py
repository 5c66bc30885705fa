"""The Deployment of the router pods, and whether it is in the middle of replacing them."""

from __future__ import annotations

from typing import Any

from paceline.api import InferenceService
from paceline.fleet.names import ROUTER, Names
from paceline.fleet.observed import RawObject, ServiceMeta
from paceline.fleet.ownership import owner_reference
from paceline.fleet.router_pod import router_pod_template, template_digest
from paceline.fleet.settings import Settings

ANNOTATION_DIGEST = "paceline.dev/template-digest"


def router_deployment(service: InferenceService, *, meta: ServiceMeta, settings: Settings) -> dict[str, Any]:
    names = Names(meta.name)
    template = router_pod_template(service, meta=meta, settings=settings)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.router,
            "namespace": meta.namespace,
            "labels": names.labels(ROUTER),
            "annotations": {ANNOTATION_DIGEST: template_digest(template)},
            "ownerReferences": [owner_reference(meta)],
        },
        "spec": {
            "replicas": service.spec.router.replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": names.selector(ROUTER)},
            # A new router pod is Ready before an old one begins to leave: never fewer than asked for.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }


def is_rolling(live: RawObject | None, *, wanted: RawObject) -> bool:
    """Whether router pods are being replaced, or this plan begins to: the engines' shape then stays as it is.

    A roll that has failed (its deadline passed) counts as over; it must not keep the engines from healing.
    """
    if live is None:
        return False
    spec, status = live.get("spec") or {}, live.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    if conditions.get("Progressing", {}).get("status") == "False":
        return False
    digest = (live["metadata"].get("annotations") or {}).get(ANNOTATION_DIGEST)
    updated = int(status.get("updatedReplicas") or 0)
    return (
        digest != wanted["metadata"]["annotations"][ANNOTATION_DIGEST]
        or int(status.get("observedGeneration") or 0) < int(live["metadata"].get("generation") or 0)
        or updated < int(spec.get("replicas") or 0)
        or int(status.get("replicas") or 0) > updated
    )


def ready_routers(live: RawObject | None) -> int:
    return int(((live or {}).get("status") or {}).get("readyReplicas") or 0)
