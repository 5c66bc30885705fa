"""A plain client of the shared API server for these tests, in one namespace, and what waits for things to
become true.

Synchronous and without any of the operator's code: what a test sees of the cluster does not depend on what
it tests.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from tests.integration.control_plane import ControlPlane

Raw = dict[str, Any]
ENGINE, ROUTER = "engine", "router"

PATHS = {
    "InferenceService": "/apis/paceline.dev/v1alpha1/namespaces/{}/inferenceservices",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Event": "/api/v1/namespaces/{}/events",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/podmonitors",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
}
CHILD_KINDS = (
    "ServiceAccount",
    "ConfigMap",
    "Service",
    "Role",
    "RoleBinding",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "Deployment",
)
LABEL = "paceline.dev/service"


class HttpError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:500]}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Cluster:
    plane: ControlPlane
    namespace: str
    context: ssl.SSLContext

    @classmethod
    def connect(cls, plane: ControlPlane, *, namespace: str) -> Cluster:
        return cls(plane, namespace, ssl.create_default_context(cafile=str(plane.ca_file)))

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **params: str,
    ) -> Raw:
        request = urllib.request.Request(
            f"{self.plane.url}{path}?{urlencode(params)}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self.plane.token}", "Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                parsed: Raw = json.loads(answer.read())
                return parsed
        except urllib.error.HTTPError as error:
            raise HttpError(error.code, error.read().decode()) from error

    def path(self, kind: str, name: str | None = None, *more: str) -> str:
        return "/".join((PATHS[kind].format(self.namespace), *((name,) if name else ()), *more))

    def get(self, kind: str, name: str) -> Raw | None:
        try:
            return self.call("GET", self.path(kind, name))
        except HttpError as error:
            if error.status == 404:
                return None
            raise

    def objects(self, kind: str, *, selector: str = "") -> list[Raw]:
        items: list[Raw] = self.call("GET", self.path(kind), labelSelector=selector)["items"]
        return items

    def create(self, kind: str, body: Raw) -> Raw:
        return self.call("POST", self.path(kind), body)

    def patch(self, kind: str, name: str, body: Any, *more: str, manager: str = "a-test") -> Raw:
        """A merge patch, as `kubectl edit` sends one."""
        return self.call(
            "PATCH",
            self.path(kind, name, *more),
            body,
            content_type="application/merge-patch+json",
            fieldManager=manager,
        )

    def delete(self, kind: str, name: str) -> None:
        self.call("DELETE", self.path(kind, name))

    def children(self, service: str, *, versions: bool = False) -> dict[tuple[str, str], str]:
        """(kind, name) -> uid, or uid and resourceVersion, of everything that bears the label of the
        service."""
        return {
            (kind, one["metadata"]["name"]): one["metadata"]["uid"]
            + (f"@{one['metadata']['resourceVersion']}" if versions else "")
            for kind in CHILD_KINDS
            for one in self.objects(kind, selector=f"{LABEL}={service}")
        }

    def engines(self, service: str) -> dict[str, Raw]:
        """The engine Deployments by name."""
        found = self.objects("Deployment", selector=f"{LABEL}={service},paceline.dev/component={ENGINE}")
        return {one["metadata"]["name"]: one for one in found}

    def condition(self, service: str, kind: str) -> Raw:
        """Empty where there is none."""
        status = (self.get("InferenceService", service) or {}).get("status") or {}
        return next((c for c in status.get("conditions") or () if c["type"] == kind), {})

    def events(self, service: str) -> list[Raw]:
        return [one for one in self.objects("Event") if one["involvedObject"].get("name") == service]


T = TypeVar("T")


def eventually(what: Callable[[], T], *, within_s: float = 15.0, holds: Callable[[T], bool] = bool) -> T:
    """The first value for which `holds`, asked again and again; fails with the last one."""
    deadline_s = time.monotonic() + within_s
    while True:
        value = what()
        if holds(value):
            return value
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {within_s} s; last seen: {value!r}")
        time.sleep(0.1)


def service(name: str, *, replicas: int = 1, tensor_parallel_size: int = 1, **spec: Any) -> Raw:
    return {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct", "kvCache": {"size": "1Gi"}},
            "slo": {"preset": "Standard"},
            "scaling": {
                "mode": "Manual",
                "replicas": replicas,
                "tensorParallelSize": tensor_parallel_size,
            },
            "accelerator": {"resourceName": "cpu"},
            **spec,
        },
    }


def expected_children(name: str) -> set[tuple[str, str]]:
    """Apart from the engine Deployments."""
    return {
        ("ServiceAccount", f"{name}-engine"),
        ("ServiceAccount", f"{name}-router"),
        ("ConfigMap", f"{name}-slo"),
        ("Service", name),
        ("Service", f"{name}-routers"),
        ("Role", f"{name}-router"),
        ("RoleBinding", f"{name}-router"),
        ("PodDisruptionBudget", f"{name}-engine"),
        ("PodDisruptionBudget", f"{name}-router"),
        ("NetworkPolicy", f"{name}-engine"),
        ("NetworkPolicy", f"{name}-router"),
        ("Deployment", f"{name}-router"),
    }


def pods_of(cluster: Cluster, service_name: str) -> Iterator[Raw]:
    yield from cluster.objects("Pod", selector=f"{LABEL}={service_name}")


@contextmanager
def pod_monitors(cluster: Cluster) -> Iterator[None]:
    """The API server knows the kind PodMonitor for as long as the block lasts."""
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "podmonitors", "singular": "podmonitor", "kind": "PodMonitor"}
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "podmonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": names,
            "versions": [version],
        },
    }
    cluster.call("POST", crds, body)
    try:
        yield
    finally:
        cluster.call("DELETE", f"{crds}/podmonitors.monitoring.coreos.com")
