"""The Deployment of one variant. Its template is written once and read back from an annotation ever after.

Without that, an operator upgrade that adds a flag or moves the default image would restart every engine of
the cluster at once. What differs only by the operator's version waits for the next change of the spec.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paceline.api import InferenceService
from paceline.fleet.engine_pod import engine_pod_template
from paceline.fleet.names import (
    ANNOTATION_ASKED,
    ANNOTATION_INPUTS,
    ANNOTATION_SERVED,
    ANNOTATION_TEMPLATE,
    ENGINE,
    LABEL_VARIANT,
    Names,
)
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference
from paceline.fleet.settings import Settings
from paceline.fleet.variant import Inputs, Variant, canonical
from paceline_core import LAYOUT_ANNOTATION, Layout


def new_deployment(
    service: InferenceService,
    *,
    meta: ServiceMeta,
    name: str,
    inputs: Inputs,
    model_uri: str,
    replicas: int,
    asked_replicas: int,
    settings: Settings,
) -> dict[str, Any]:
    """The Deployment of a variant that does not exist yet."""
    tensor_parallel_size = int(inputs["tensorParallelSize"])
    template = engine_pod_template(
        service,
        meta=meta,
        variant=name,
        tensor_parallel_size=tensor_parallel_size,
        model_uri=model_uri,
        settings=settings,
    )
    return _deployment(
        meta,
        name=name,
        tensor_parallel_size=tensor_parallel_size,
        replicas=replicas,
        template=template,
        annotations={
            ANNOTATION_ASKED: str(asked_replicas),
            ANNOTATION_INPUTS: canonical(inputs),
            ANNOTATION_TEMPLATE: _written(template),
        },
    )


def existing_deployment(
    variant: Variant,
    *,
    meta: ServiceMeta,
    inputs: Inputs | None,
    layout: Layout,
    replicas: int,
    asked_replicas: int,
) -> dict[str, Any]:
    """The Deployment of a variant that exists: what shapes a pod is exactly as it was first applied.

    `inputs` is what it was made from, None where that cannot be told any more. `layout` is what its pods are to have
    by now.
    """
    template = _template_of(variant)
    annotations = {ANNOTATION_ASKED: str(asked_replicas), ANNOTATION_TEMPLATE: _written(template)}
    if inputs is not None:
        annotations[ANNOTATION_INPUTS] = canonical(inputs)
    told_before = LAYOUT_ANNOTATION in (variant.deployment["metadata"].get("annotations") or {})
    if told_before or layout != Layout(variant.gpus_per_pod):
        annotations[LAYOUT_ANNOTATION] = str(layout)
    if variant.has_served:
        annotations[ANNOTATION_SERVED] = "true"
    return _deployment(
        meta,
        name=variant.name,
        tensor_parallel_size=variant.gpus_per_pod,
        replicas=replicas,
        template=template,
        annotations=annotations,
    )


def _template_of(variant: Variant) -> dict[str, Any]:
    """Where the annotation was lost, the live template, defaults and all: it restarts nothing either."""
    text = (variant.deployment["metadata"].get("annotations") or {}).get(ANNOTATION_TEMPLATE)
    try:
        template = json.loads(text or "")
    except ValueError:
        template = variant.deployment["spec"]["template"]
    return dict(template)


def _written(template: Mapping[str, Any]) -> str:
    return json.dumps(template, sort_keys=True, separators=(",", ":"))


def _deployment(
    meta: ServiceMeta,
    *,
    name: str,
    tensor_parallel_size: int,
    replicas: int,
    template: dict[str, Any],
    annotations: dict[str, str],
) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.variant(name),
            "namespace": meta.namespace,
            "labels": names.variant_labels(name, tensor_parallel_size=tensor_parallel_size),
            "annotations": annotations,
            "ownerReferences": [owner_reference(meta)],
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": {**names.selector(ENGINE), LABEL_VARIANT: name}},
            # Ours never rolls. If somebody else changes the template, this way costs the least capacity.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }
