"""The service's address for clients, and the headless one by which engine pods ask every router pod.

Both select router pods: no client, and no other pod of the cluster, ever needs the address of an engine pod.
"""

from __future__ import annotations

from typing import Any

from paceline.fleet.names import GATE_OPS_PORT, ROUTER, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference


def public_service(meta: ServiceMeta) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(meta, name=names.service),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(ROUTER),
            "ports": [
                {"name": "http", "port": 80, "targetPort": "api", "protocol": "TCP", "appProtocol": "http"}
            ],
        },
    }


def routers_service(meta: ServiceMeta) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(meta, name=names.routers),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            # A router that is draining, or not yet Ready, may still hold an engine pod in its list.
            "publishNotReadyAddresses": True,
            "selector": names.selector(ROUTER),
            "ports": [{"name": "ops", "port": GATE_OPS_PORT, "targetPort": "ops", "protocol": "TCP"}],
        },
    }


def public_url(meta: ServiceMeta) -> str:
    return f"http://{meta.name}.{meta.namespace}.svc/v1"


def routers_host(meta: ServiceMeta) -> str:
    return f"{Names(meta.name).routers}.{meta.namespace}.svc"


def _metadata(meta: ServiceMeta, *, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": meta.namespace,
        "labels": Names(meta.name).labels(ROUTER),
        "ownerReferences": [owner_reference(meta)],
    }
