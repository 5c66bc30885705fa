"""A variant: the engine pods of one service that share one template, and how it is told from the next.

A variant is named after the parts of the spec that shape an engine pod. Replicas, SLO, router, operator
version and default images are not among them: none of those may restart an engine.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from paceline.api import (
    Accelerator,
    Admission,
    InferenceService,
    Model,
    Placement,
    Runtime,
)
from paceline.api.base import ApiModel
from paceline.fleet.names import (
    ANNOTATION_ASKED,
    ANNOTATION_INPUTS,
    ANNOTATION_SERVED,
    LABEL_VARIANT,
)
from paceline.fleet.observed import Observed, Pod, RawObject
from paceline.fleet.ownership import is_deleting, is_owned
from paceline.fleet.timestamps import unix_s
from paceline_core import LAYOUT_ANNOTATION, Layout, LayoutError

Inputs = Mapping[str, Any]

_SECTIONS: Mapping[str, type[ApiModel]] = {
    "model": Model,
    "admission": Admission,
    "accelerator": Accelerator,
    "placement": Placement,
    "runtime": Runtime,
}


def template_inputs(service: InferenceService, *, tensor_parallel_size: int) -> Inputs:
    spec = service.spec
    sections = {name: getattr(spec, name).to_manifest() for name in _SECTIONS}
    sections["model"]["servedNames"] = list(service.served_names)
    return {"tensorParallelSize": tensor_parallel_size, **sections}


def canonical(inputs: Inputs) -> str:
    return json.dumps(inputs, sort_keys=True, separators=(",", ":"))


def variant_name(inputs: Inputs, *, taken: Iterable[str] = ()) -> str:
    """`taken` are the names of other variants: one that was made from these inputs may have another layout now."""
    others = frozenset(taken)
    for again in itertools.count():
        text = canonical(inputs) + "#" * again
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"tp{inputs['tensorParallelSize']}-{digest}"
        if name not in others:
            return name
    raise AssertionError("unreachable")


def read_inputs(text: str | None) -> Inputs | None:
    """What an earlier operator wrote, read with today's models: a field that has come since counts as its
    default, so that an upgrade which adds one starts no transition. None where it cannot be read any
    more."""
    try:
        stored = json.loads(text or "")
        sections = {
            name: model.from_manifest(stored[name]).to_manifest() for name, model in _SECTIONS.items()
        }
        return {"tensorParallelSize": int(stored["tensorParallelSize"]), **sections}
    except (ValueError, TypeError, KeyError, ValidationError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One engine Deployment and its pods, as observed."""

    name: str
    gpus_per_pod: int
    """The tensor-parallel size that its template was made for (processes on a CPU)."""

    layout: Layout
    """How its pods are to divide these."""

    made_from: Inputs | None
    """What the template was made from; None where that cannot be told any more."""

    deployment: RawObject
    replicas: int
    """`spec.replicas` of the Deployment."""

    asked_replicas: int
    """Pods that were last asked for at this tensor-parallel size; `replicas` may be more for a while."""

    pods: tuple[Pod, ...]
    created_at_s: float
    has_served: bool
    """Whether one of its pods was ever seen Ready. A variant that never was gives nothing to go back to."""

    settled: bool
    """Whether the Deployment's controller has seen its latest spec."""

    @property
    def tensor_parallel_size(self) -> int:
        return self.layout.tensor_parallel_size

    @property
    def inputs(self) -> Inputs | None:
        """What a template would be made from for the size that its pods are to have now."""
        if self.made_from is None:
            return None
        return {**self.made_from, "tensorParallelSize": self.tensor_parallel_size}

    def pods_for(self, replicas: int) -> int:
        """A pod holds as many replicas as it has data-parallel ranks; a part of one takes a whole pod."""
        return -(-replicas // self.layout.data_parallel_size)

    @property
    def live(self) -> tuple[Pod, ...]:
        """Pods that count as replicas: not on their way out and not ended."""
        return tuple(pod for pod in self.pods if not pod.deleting and not pod.finished)

    @property
    def serving(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.serving)

    @property
    def starting(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.live if not pod.ready)

    @property
    def draining(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.deleting)


def observed_variants(observed: Observed) -> tuple[Variant, ...]:
    """The service's engine Deployments, oldest first. One that is being deleted is not there any more, and
    one that only bears our labels never was."""
    found = [
        _read_variant(child, observed.pods)
        for (kind, _), child in observed.children.items()
        if kind == "Deployment"
        and LABEL_VARIANT in _pod_labels(child)
        and is_owned(child, by=observed.meta)
        and not is_deleting(child)
    ]
    return tuple(sorted(found, key=lambda one: (one.created_at_s, one.name)))


def find_by_inputs(variants: Iterable[Variant], inputs: Inputs) -> Variant | None:
    """One that has pods, if there is any: a change in place leaves two for a moment, and one of them is empty."""
    found = [one for one in variants if one.inputs == inputs]
    return min(found, key=lambda one: one.replicas == 0, default=None)


def _read_variant(deployment: RawObject, pods: Iterable[Pod]) -> Variant:
    meta, spec = deployment["metadata"], deployment["spec"]
    status = deployment.get("status") or {}
    annotations = meta.get("annotations") or {}
    name = str(_pod_labels(deployment)[LABEL_VARIANT])
    replicas = int(spec.get("replicas", 1))
    asked = str(annotations.get(ANNOTATION_ASKED, ""))
    gpus = int(name.removeprefix("tp").partition("-")[0])
    mine = tuple(pod for pod in pods if pod.variant == name)
    return Variant(
        name=name,
        gpus_per_pod=gpus,
        layout=_layout(annotations.get(LAYOUT_ANNOTATION), gpus=gpus),
        made_from=read_inputs(annotations.get(ANNOTATION_INPUTS)),
        deployment=deployment,
        replicas=replicas,
        asked_replicas=int(asked) if asked.isdigit() else replicas,
        pods=mine,
        created_at_s=unix_s(meta["creationTimestamp"]),
        has_served=ANNOTATION_SERVED in annotations or any(pod.serving for pod in mine),
        settled=int(status.get("observedGeneration") or 0) >= int(meta.get("generation") or 0),
    )


def _layout(text: str | None, *, gpus: int) -> Layout:
    """Of a Deployment's annotation. One that cannot be read is as good as none: the template's own layout is always
    possible."""
    try:
        layout = Layout.parse(text) if text is not None else Layout(gpus)
    except LayoutError:
        return Layout(gpus)
    return layout if layout.gpus == gpus else Layout(gpus)


def _pod_labels(deployment: RawObject) -> Mapping[str, Any]:
    """Of the selector, which nobody can change: the labels of the Deployment itself may have been taken
    off."""
    selector: Mapping[str, Any] = deployment["spec"]["selector"].get("matchLabels") or {}
    return selector
