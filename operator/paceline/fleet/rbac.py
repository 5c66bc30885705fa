"""Identities of the pods. Engine pods get none of Kubernetes; router pods may watch pods of their
namespace.
"""

from __future__ import annotations

from typing import Any

from paceline.fleet.names import ENGINE, ROUTER, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference


def engine_service_account(meta: ServiceMeta) -> dict[str, Any]:
    return _service_account(meta, component=ENGINE)


def router_service_account(meta: ServiceMeta) -> dict[str, Any]:
    return _service_account(meta, component=ROUTER)


def router_role(meta: ServiceMeta) -> dict[str, Any]:
    """A Role cannot select by label: it covers the pods of the namespace, to read."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _router_metadata(meta),
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    }


def router_role_binding(meta: ServiceMeta) -> dict[str, Any]:
    name = Names(meta.name).router
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _router_metadata(meta),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": meta.namespace}],
    }


def _service_account(meta: ServiceMeta, *, component: str) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": names.engine if component == ENGINE else names.router,
            "namespace": meta.namespace,
            "labels": names.labels(component),
            "ownerReferences": [owner_reference(meta)],
        },
        # The router's pod template asks for the token itself; nothing else that uses the account gets one.
        "automountServiceAccountToken": False,
    }


def _router_metadata(meta: ServiceMeta) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "name": names.router,
        "namespace": meta.namespace,
        "labels": names.labels(ROUTER),
        "ownerReferences": [owner_reference(meta)],
    }
