"""The pod template of a variant: built once, when the variant is made, and kept in its Deployment ever after.

So nothing here needs to stay the same from one version of the operator to the next; `engine_deployment`
sees to it that a variant that exists keeps the template it began with.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from paceline.api import InferenceService, TopologySpreadConstraint
from paceline.fleet.drain_time import engine_grace_s
from paceline.fleet.engine_args import LAYOUT_PATH, engine_args
from paceline.fleet.engine_resources import RUN_DIRECTORY_BYTES, engine_resources
from paceline.fleet.names import ENGINE, ENGINE_PORT, LIVE_PORT, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.pod_security import container_security_context, pod_security_context
from paceline.fleet.settings import Settings
from paceline_core import LAYOUT_ANNOTATION

CACHE_PATH = "/models/cache"
PRODUCT_LABEL = "nvidia.com/gpu.product"
STARTUP_PROBE_PERIOD_S = 2
HUNG_GRACE_S = 10
"""What the kubelet leaves an engine that liveness ends: its requests do not end, however long they may take."""


def engine_pod_template(
    service: InferenceService,
    *,
    meta: ServiceMeta,
    variant: str,
    tensor_parallel_size: int,
    model_uri: str,
    settings: Settings,
) -> dict[str, Any]:
    """`model_uri` is the one of the spec, or the same with its branch resolved to a commit, so that the
    pods of a variant never serve different weights."""
    spec = service.spec
    names = Names(meta.name)
    pod: dict[str, Any] = {
        "serviceAccountName": names.engine,
        "automountServiceAccountToken": False,
        # For a Service named `vllm` Kubernetes would set VLLM_PORT to an address; vLLM reads a number there.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": engine_grace_s(service),
        "securityContext": pod_security_context(),
        "containers": [
            {
                "name": "engine",
                "image": _image(service, settings),
                "imagePullPolicy": settings.image_pull_policy,
                "command": ["paceline-runtime"],
                "args": engine_args(
                    service, meta=meta, tensor_parallel_size=tensor_parallel_size, model_uri=model_uri
                ),
                "env": _environment(service),
                "ports": _ports(service),
                "resources": engine_resources(service, tensor_parallel_size=tensor_parallel_size),
                "securityContext": container_security_context(),
                "volumeMounts": _mounts(service),
                "lifecycle": {"preStop": {"exec": {"command": ["paceline-runtime", "drain"]}}},
                **_probes(service),
            }
        ],
        "volumes": _volumes(service, names=names),
        "topologySpreadConstraints": _spread(service, names=names),
    }
    if spec.runtime.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": one.name} for one in spec.runtime.image_pull_secrets]
    if spec.accelerator.node_selector:
        pod["nodeSelector"] = dict(spec.accelerator.node_selector)
    if spec.accelerator.tolerations:
        pod["tolerations"] = [one.to_manifest() for one in spec.accelerator.tolerations]
    if spec.accelerator.products:
        pod["affinity"] = _product_affinity(spec.accelerator.products)
    if spec.placement.priority_class_name:
        pod["priorityClassName"] = spec.placement.priority_class_name
    if spec.placement.scheduler_name:
        pod["schedulerName"] = spec.placement.scheduler_name
    return {
        "metadata": {
            "labels": names.variant_labels(variant, tensor_parallel_size=tensor_parallel_size),
            "annotations": {
                "kubectl.kubernetes.io/default-container": "engine",
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(ENGINE_PORT),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": pod,
    }


def _image(service: InferenceService, settings: Settings) -> str:
    runtime = service.spec.runtime
    if runtime.image:
        return runtime.image
    if runtime.emulation is not None:
        return settings.images.emulator
    return settings.images.runtime_cpu if service.spec.accelerator.is_cpu else settings.images.runtime_gpu


def _environment(service: InferenceService) -> list[dict[str, Any]]:
    spec = service.spec
    environment: list[dict[str, Any]] = [
        {"name": "HOME", "value": "/tmp"},
        *(
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in (
                ("POD_NAME", "metadata.name"),
                ("POD_NAMESPACE", "metadata.namespace"),
                ("POD_IP", "status.podIP"),
            )
        ),
    ]
    if spec.model.uri.startswith("hf://"):
        environment.append({"name": "HF_HOME", "value": CACHE_PATH if spec.model.cache else "/tmp"})
    if spec.model.secret_ref is not None:
        token = {"secretKeyRef": {"name": spec.model.secret_ref.name, "key": "token"}}
        environment.append({"name": "HF_TOKEN", "valueFrom": token})
    return environment + [one.to_manifest() for one in spec.runtime.env]


def _ports(service: InferenceService) -> list[dict[str, Any]]:
    ports = {"http": ENGINE_PORT}
    if service.spec.runtime.emulation is None:
        ports["live"] = LIVE_PORT
    return [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()]


def _claims(service: InferenceService) -> list[tuple[str, str, str, bool]]:
    """(volume, claim, mount path, read only)"""
    model = service.spec.model
    claims = []
    if model.uri.startswith("pvc://"):
        claim = model.uri.removeprefix("pvc://").partition("/")[0]
        claims.append(("model", claim, "/models/pvc", True))
    if model.cache is not None:
        claims.append(("cache", model.cache.persistent_volume_claim.claim_name, CACHE_PATH, False))
    return claims


def _volumes(service: InferenceService, *, names: Names) -> list[dict[str, Any]]:
    return [
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": f"{RUN_DIRECTORY_BYTES // 1024**2}Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "shm",
            "emptyDir": {"medium": "Memory", "sizeLimit": service.spec.runtime.shared_memory_size},
        },
        {"name": "slo", "configMap": {"name": names.slo}},
        {
            "name": "pod",
            "downwardAPI": {
                "items": [
                    {
                        "path": PurePosixPath(LAYOUT_PATH).name,
                        "fieldRef": {
                            "apiVersion": "v1",
                            "fieldPath": f"metadata.annotations['{LAYOUT_ANNOTATION}']",
                        },
                    }
                ]
            },
        },
        *(
            {
                "name": volume,
                "persistentVolumeClaim": {"claimName": claim} | ({"readOnly": True} if read_only else {}),
            }
            for volume, claim, _, read_only in _claims(service)
        ),
    ]


def _mounts(service: InferenceService) -> list[dict[str, Any]]:
    return [
        {"name": "run", "mountPath": "/run/paceline"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
        # A directory, not a subPath: only so does the kubelet carry a change of targets into a running pod.
        {"name": "slo", "mountPath": "/etc/paceline/slo", "readOnly": True},
        {"name": "pod", "mountPath": str(PurePosixPath(LAYOUT_PATH).parent), "readOnly": True},
        *(
            {"name": volume, "mountPath": path} | ({"readOnly": True} if read_only else {})
            for volume, _, path, read_only in _claims(service)
        ),
    ]


def _probes(service: InferenceService) -> dict[str, Any]:
    """A start may last as long as a transition waits for it: the kubelet gives up no sooner than the
    operator.

    Readiness leaves 5 s for an answer, because a busy two-core node is slow, not gone. Liveness asks
    whether the engine still steps and gives it a minute more; then there is nothing to drain."""
    ready = {"httpGet": {"path": "/ready", "port": "http"}}
    allowed_s = service.spec.transition.ready_deadline_seconds
    return {
        "startupProbe": ready
        | {
            "periodSeconds": STARTUP_PROBE_PERIOD_S,
            "timeoutSeconds": 2,
            "failureThreshold": -(-allowed_s // STARTUP_PROBE_PERIOD_S),
        },
        "readinessProbe": ready | {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {
            # An emulated engine is back within seconds and needs no launcher beside it.
            "httpGet": {
                "path": "/live",
                "port": "live" if service.spec.runtime.emulation is None else "http",
            },
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
            "terminationGracePeriodSeconds": HUNG_GRACE_S,
        },
    }


def _spread(service: InferenceService, *, names: Names) -> list[dict[str, Any]]:
    constraints = service.spec.placement.topology_spread_constraints or (
        TopologySpreadConstraint(topology_key="kubernetes.io/hostname"),
    )
    selector = {"labelSelector": {"matchLabels": names.selector(ENGINE)}}
    return [one.to_manifest() | selector for one in constraints]


def _product_affinity(products: tuple[str, ...]) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": PRODUCT_LABEL, "operator": "In", "values": list(products)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
