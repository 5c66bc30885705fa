"""The pod template of the router: the gate in front, vLLM's router behind it on loopback.

It is built anew at every plan: a router pod may be replaced at any time without losing a request. It
excludes shape and SLO (the gate reads targets.json), so neither restarts it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from paceline.api import InferenceService
from paceline.fleet.drain_time import router_grace_s
from paceline.fleet.engine_args import TARGETS_PATH
from paceline.fleet.names import (
    ENGINE,
    ENGINE_PORT,
    GATE_OPS_PORT,
    GATE_PORT,
    ROUTER,
    ROUTER_LOOPBACK_PORT,
    Names,
)
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.pod_security import container_security_context, pod_security_context
from paceline.fleet.settings import Settings

KEYS_PATH = "/etc/paceline/keys"
DEFAULT_REQUESTS = {"cpu": "100m", "memory": "128Mi"}


def router_pod_template(
    service: InferenceService, *, meta: ServiceMeta, settings: Settings
) -> dict[str, Any]:
    names = Names(meta.name)
    pod: dict[str, Any] = {
        "serviceAccountName": names.router,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": router_grace_s(service),
        "securityContext": pod_security_context(),
        "initContainers": [_router_container(service, meta=meta, settings=settings)],
        "containers": [_gate_container(service, meta=meta, settings=settings)],
        "volumes": _volumes(service, names=names),
        "affinity": _prefer_other_nodes(names),
    }
    if service.spec.runtime.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": one.name} for one in service.spec.runtime.image_pull_secrets]
    return {
        "metadata": {
            "labels": names.labels(ROUTER),
            "annotations": {
                "kubectl.kubernetes.io/default-container": "gate",
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(GATE_OPS_PORT),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": pod,
    }


def template_digest(template: dict[str, Any]) -> str:
    """Tells whether a plan is about to roll the router pods, before the API server's defaults blur the
    comparison."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _router_container(service: InferenceService, *, meta: ServiceMeta, settings: Settings) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "name": "router",
        # A sidecar: the kubelet stops it only after the gate has ended, so no stream loses its way out.
        "restartPolicy": "Always",
        "image": settings.images.router,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["paceline-runtime"],
        "args": [
            "router",
            *("--service", meta.name),
            *("--namespace", meta.namespace),
            *("--selector", names.selector_text(ENGINE)),
            *("--policy", service.spec.router.policy),
            *("--max-request-seconds", str(service.spec.admission.max_request_seconds)),
            *("--port", str(ROUTER_LOOPBACK_PORT)),
            *("--engine-port", str(ENGINE_PORT)),
        ],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": _resources(service),
        "securityContext": container_security_context(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _gate_container(service: InferenceService, *, meta: ServiceMeta, settings: Settings) -> dict[str, Any]:
    names, spec = Names(meta.name), service.spec
    keys = spec.endpoint.api_key_secret_ref
    return {
        "name": "gate",
        "image": settings.images.router,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["paceline-runtime"],
        "args": [
            "gate",
            *("--router", f"http://127.0.0.1:{ROUTER_LOOPBACK_PORT}"),
            *("--port", str(GATE_PORT)),
            *("--ops-port", str(GATE_OPS_PORT)),
            *("--service", meta.name),
            *("--namespace", meta.namespace),
            *("--selector", names.selector_text(ENGINE)),
            *(("--api-keys-dir", KEYS_PATH) if keys is not None else ()),
            *("--targets", TARGETS_PATH),
            *("--max-held-requests", str(spec.router.hold.max_requests)),
            *("--max-hold-seconds", str(spec.hold_seconds)),
            *("--max-request-seconds", str(spec.admission.max_request_seconds)),
        ],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "ports": [
            {"name": "api", "containerPort": GATE_PORT, "protocol": "TCP"},
            {"name": "ops", "containerPort": GATE_OPS_PORT, "protocol": "TCP"},
        ],
        "resources": _resources(service),
        "securityContext": container_security_context(),
        "volumeMounts": [
            {"name": "run", "mountPath": "/run/paceline"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "slo", "mountPath": "/etc/paceline/slo", "readOnly": True},
            *([{"name": "keys", "mountPath": KEYS_PATH, "readOnly": True}] if keys is not None else []),
        ],
        "lifecycle": {"preStop": {"exec": {"command": ["paceline-runtime", "gate-drain"]}}},
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "ops"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            # A gate that drains is out by its deletion, one that died by its exit. What is left for the
            # probe is slowness, and to a slow last gate an empty Service is no better answer.
            "failureThreshold": 6,
        },
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "ops"},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
    }


def _resources(service: InferenceService) -> dict[str, Any]:
    """Of each of the two containers."""
    given = service.spec.router.resources
    requests = {name: amount for name, amount in DEFAULT_REQUESTS.items() if name not in given.limits}
    requests |= given.requests
    return {"requests": requests} | ({"limits": dict(given.limits)} if given.limits else {})


def _volumes(service: InferenceService, *, names: Names) -> list[dict[str, Any]]:
    keys = service.spec.endpoint.api_key_secret_ref
    volumes: list[dict[str, Any]] = [
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "slo", "configMap": {"name": names.slo}},
    ]
    if keys is not None:
        # Not optional: without its keys the gate must not start, rather than let everybody in.
        volumes.append({"name": "keys", "secret": {"secretName": keys.name}})
    return volumes


def _prefer_other_nodes(names: Names) -> dict[str, Any]:
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": names.selector(ROUTER)},
    }
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
        }
    }
