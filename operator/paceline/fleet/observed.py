"""One consistent look at the cluster for one service: everything that `plan` may know.

The controller fills it from its caches. Raw API objects become values here, so that the parsing is pure and
tested and the rest of the package reads names, not dictionaries. What could not be read is None (unknown),
never 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from paceline.fleet.names import LABEL_COMPONENT, LABEL_TENSOR_PARALLEL_SIZE, LABEL_VARIANT
from paceline.fleet.timestamps import unix_s as unix_s
from paceline_core import LAYOUT_ANNOTATION, Canary, CanaryError, Layout, LayoutError, LayoutOrder

if TYPE_CHECKING:
    from paceline.api import InferenceService, InferenceServiceStatus
    from paceline.fleet.advice import Advice
    from paceline_core.checkpoint import CheckpointFacts

RawObject = Mapping[str, Any]
ChildKey = tuple[str, str]
"""(kind, name)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMeta:
    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    created_at_s: float
    deleting: bool
    annotations: Mapping[str, str]
    managed_fields: tuple[RawObject, ...]
    """As in the object; must not be stripped: a write to /scale that Auto does not follow is seen here."""

    @classmethod
    def parse(cls, raw: RawObject) -> ServiceMeta:
        meta = raw["metadata"]
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            generation=int(meta["generation"]),
            resource_version=str(meta["resourceVersion"]),
            created_at_s=unix_s(meta["creationTimestamp"]),
            deleting=bool(meta.get("deletionTimestamp")),
            annotations=dict(meta.get("annotations") or {}),
            managed_fields=tuple(meta.get("managedFields") or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a launcher wrote to its termination message: `Refused` before loading anything, else `Failed`."""

    verdict: Literal["Refused", "Failed"]
    field: str | None
    stage: str | None
    message: str

    @classmethod
    def parse(cls, text: str | None) -> Verdict | None:
        """None for anything that is not a verdict: a kernel or a library may have written there too."""
        if not text:
            return None
        try:
            body = json.loads(text)
        except ValueError:
            return None
        if not isinstance(body, dict) or body.get("verdict") not in ("Refused", "Failed"):
            return None
        return cls(
            verdict=body["verdict"],
            field=_text(body.get("field")),
            stage=_text(body.get("stage")),
            message=str(body.get("message") or "")[:1024],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodInfo:
    """An engine pod's own word: `GET /paceline/info`. The image is the user's: what is not of the form that
    was agreed on counts as not said."""

    version: str | None
    emulated: bool | None
    draining: bool | None
    layout: Layout | None
    """How it divides its GPUs; None where its runtime does not say, and so cannot change it."""

    refused_order: str | None
    """The order of a layout that it did not follow, or could not start in."""

    refused_because: str | None
    model_revision: str | None
    attention_heads: int | None
    kv_heads: int | None
    weights_bytes: int | None
    stage_seconds: Mapping[str, float]
    canary: Canary | None
    """What it answers to texts that never change; None where it does not say."""

    is_old: bool = False
    """It was said before the pod was last away, and it may have come back as another one."""

    @classmethod
    def parse(cls, body: RawObject) -> PodInfo:
        model, stages = _mapping(body.get("model")), _mapping(body.get("stages"))
        refused = _mapping(body.get("refusedLayout"))
        return cls(
            version=_text(body.get("version")),
            emulated=_flag(body.get("emulated")),
            draining=_flag(body.get("draining")),
            layout=_layout(body),
            refused_order=_text(refused.get("order")),
            refused_because=_text(refused.get("message")),
            model_revision=_text(model.get("revision")),
            attention_heads=_count(model.get("attentionHeads")),
            kv_heads=_count(model.get("kvHeads")),
            weights_bytes=_count(model.get("weightsBytes")),
            stage_seconds={str(k): float(v) for k, v in stages.items() if isinstance(v, int | float)},
            canary=_canary(body.get("canary")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    name: str
    uid: str
    component: str
    """`engine` or `router`."""

    variant: str | None
    tensor_parallel_size: int | None
    """Of its template; a change in place leaves it."""

    ordered: str | None
    """The annotation that tells it its layout, as it stands; None: the layout of its template."""

    gpus: int
    """Devices that the pod asks for; 0 on a CPU."""

    created_at_s: float
    ip: str | None
    node: str | None
    phase: str
    ready: bool
    ready_since_s: float | None
    deleting: bool
    deleting_since_s: float | None
    """When the deletion was asked for, which is earlier than the deletionTimestamp by the grace period."""

    starting_reason: str | None
    """Why a container waits (`ImagePullBackOff`, `CrashLoopBackOff`, …); None where none says so."""

    starting_message: str | None
    unschedulable_since_s: float | None
    unschedulable_message: str | None
    scheduling_gated: bool
    disrupted: bool
    """Condition DisruptionTarget: an eviction, preemption or taint is about to take this pod."""

    verdict: Verdict | None
    """The last word of the engine container, running again or not."""

    started_at_s: float | None
    restarts: int
    info: PodInfo | None

    @property
    def serving(self) -> bool:
        """Answers requests and is not on its way out."""
        return self.ready and not self.deleting

    @property
    def layout(self) -> Layout | None:
        """What it serves in; None: unknown."""
        return self.info.layout if self.info is not None else None

    @property
    def told(self) -> Layout | None:
        """The layout that it was ordered, else that of its template. None: it is no engine of ours."""
        try:
            return LayoutOrder.parse(self.ordered or "").layout
        except LayoutError:
            return Layout(self.tensor_parallel_size) if self.tensor_parallel_size is not None else None

    @property
    def serves_in(self) -> Layout | None:
        """The layout of what it does now, or of what it starts; None: it was told another one once, and has not said
        since it is Ready which it has."""
        if not self.ready:
            return self.told
        if self.layout is not None and self.info is not None and not self.info.is_old:
            return self.layout
        return self.told if self.ordered is None else None

    @property
    def changed_at_s(self) -> float | None:
        """Since when it can only have served in that; infinite: it does not serve. None: it never had another."""
        if self.ordered is None:
            return None
        return self.ready_since_s if self.ready else math.inf

    @property
    def groups(self) -> int:
        """Replicas that it holds: engines behind its port."""
        return self.layout.data_parallel_size if self.layout is not None else 1

    @property
    def why_not_ready(self) -> str | None:
        """The most telling word on a start that does not get there."""
        if self.verdict is not None:
            return self.verdict.message
        return self.unschedulable_message or self.starting_message or self.starting_reason

    @property
    def finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @classmethod
    def parse(cls, raw: RawObject, *, info: PodInfo | None = None) -> Pod:
        meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
        labels = meta.get("labels") or {}
        tp = str(labels.get(LABEL_TENSOR_PARALLEL_SIZE, ""))
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        containers = list(status.get("containerStatuses") or ())
        waiting = [
            w
            for c in (*(status.get("initContainerStatuses") or ()), *containers)
            if (w := (c.get("state") or {}).get("waiting"))
            and w.get("reason") not in (None, "ContainerCreating", "PodInitializing")
        ]
        main: RawObject = next((c for c in containers if c.get("name") in ("engine", "gate")), {})
        running = (main.get("state") or {}).get("running") or {}
        ready = conditions.get("Ready", {})
        scheduled = conditions.get("PodScheduled", {})
        unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        return cls(
            name=meta["name"],
            uid=meta["uid"],
            component=labels.get(LABEL_COMPONENT, ""),
            variant=labels.get(LABEL_VARIANT),
            tensor_parallel_size=int(tp) if tp.isdigit() else None,
            ordered=(meta.get("annotations") or {}).get(LAYOUT_ANNOTATION),
            gpus=_devices(spec),
            created_at_s=unix_s(meta["creationTimestamp"]),
            ip=status.get("podIP"),
            node=spec.get("nodeName"),
            phase=status.get("phase", "Pending"),
            ready=ready.get("status") == "True",
            ready_since_s=_since(ready) if ready.get("status") == "True" else None,
            deleting=bool(meta.get("deletionTimestamp")),
            deleting_since_s=_deleting_since(meta),
            starting_reason=waiting[0]["reason"] if waiting else None,
            starting_message=waiting[0].get("message") if waiting else None,
            unschedulable_since_s=_since(scheduled) if unschedulable else None,
            unschedulable_message=scheduled.get("message") if unschedulable else None,
            scheduling_gated=scheduled.get("reason") == "SchedulingGated",
            disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
            verdict=_verdict(main),
            started_at_s=unix_s(running["startedAt"]) if running.get("startedAt") else None,
            restarts=int(main.get("restartCount") or 0),
            info=info,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    cordoned: bool
    ready: bool
    labels: Mapping[str, str]
    taints: tuple[RawObject, ...]
    allocatable: Mapping[str, str]

    @property
    def leaving(self) -> bool:
        """Cordoned, or tainted by somebody who is about to take it away."""
        return self.cordoned or any(taint.get("key") in DISRUPTION_TAINTS for taint in self.taints)

    @classmethod
    def parse(cls, raw: RawObject) -> Node:
        spec, status = raw.get("spec") or {}, raw.get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
        return cls(
            name=raw["metadata"]["name"],
            cordoned=bool(spec.get("unschedulable")),
            ready=ready,
            labels=dict(raw["metadata"].get("labels") or {}),
            taints=tuple(spec.get("taints") or ()),
            allocatable=dict(status.get("allocatable") or {}),
        )


DISRUPTION_TAINTS = frozenset(
    {
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "ToBeDeletedByClusterAutoscaler",
        "node.cloudprovider.kubernetes.io/shutdown",
        "cloud.google.com/impending-node-termination",
        "aws-node-termination-handler/spot-itn",
        "aws-node-termination-handler/scheduled-maintenance",
    }
)
"""Taints by which the usual autoscalers and clouds announce that a node will go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A 409 of a server-side apply, one per child and other manager.

    Fields that another manager already holds are also found in the child's managedFields, without a 409. A
    conflict is passed so that one that appears between observing and applying is not lost."""

    kind: str
    name: str
    manager: str
    fields: tuple[str, ...]
    """Paths as the API server writes them: `.spec.replicas`."""

    first_seen_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    now_s: float
    service: InferenceService
    meta: ServiceMeta
    status: InferenceServiceStatus | None
    """As last written; None before the first write."""

    children: Mapping[ChildKey, RawObject]
    """Every object of the kinds in `CHILD_KINDS` that carries our labels, or that bears the name of a child
    (see `names.child_keys`), owned or not, with managedFields. An object that is being deleted is still
    listed."""

    pods: tuple[Pod, ...]
    """Engine and router pods, also those on their way out, until the API server no longer has them."""

    nodes: tuple[Node, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    facts: CheckpointFacts | None = field(default=None)
    """What the checkpoint's config and index say; None where the operator cannot reach them."""

    model_revision: str | None = None
    """The commit that the branch in `spec.model.uri` stands for now; None where the operator cannot ask."""

    advice: Advice | None = None
    """What the decision loop found last; None before its first look."""


CHILD_KINDS: tuple[tuple[str, str], ...] = (
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("apps/v1", "Deployment"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
)
"""(apiVersion, kind) of every child; the last only where the API server knows it."""


def _text(value: object) -> str | None:
    """As long as a field of the status may be."""
    return str(value)[:253] if value is not None else None


def _layout(body: RawObject) -> Layout | None:
    tp, dp = _count(body.get("tensorParallelSize")), _count(body.get("dataParallelSize"))
    return Layout(tp, dp) if tp and dp else None


def _canary(value: object) -> Canary | None:
    try:
        return None if value is None else Canary.from_json(value)
    except CanaryError:
        return None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _mapping(value: object) -> RawObject:
    return value if isinstance(value, Mapping) else {}


def _devices(spec: RawObject) -> int:
    """Extended resources of GPU vendors; they cannot be overcommitted, so the limit is what is held."""
    return sum(
        int(amount)
        for container in spec.get("containers") or ()
        for resource, amount in ((container.get("resources") or {}).get("limits") or {}).items()
        if resource.startswith("nvidia.com/")
    )


def _deleting_since(meta: RawObject) -> float | None:
    if not (at := meta.get("deletionTimestamp")):
        return None
    return unix_s(at) - float(meta.get("deletionGracePeriodSeconds") or 0)


def _since(condition: RawObject) -> float | None:
    at = condition.get("lastTransitionTime")
    return unix_s(at) if at else None


def _verdict(container: RawObject) -> Verdict | None:
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        if terminated := state.get("terminated"):
            return Verdict.parse(terminated.get("message"))
    return None
