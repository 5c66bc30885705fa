"""NetworkPolicies: who may open a connection to the pods of a service.

Engine pods: the service's own router pods, Prometheus and the operator. Router pods: anybody on the public
port (the gate lets only OpenAI routes through); the operations port only for the service's engine pods,
which ask for the router's list while draining, Prometheus and the operator. The router itself listens on
loopback and needs no rule. Egress is not limited: where weights come from is the user's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paceline.fleet.names import ENGINE, ENGINE_PORT, GATE_OPS_PORT, GATE_PORT, ROUTER, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference
from paceline.fleet.settings import Settings


def engine_network_policy(meta: ServiceMeta, *, settings: Settings) -> dict[str, Any]:
    names = Names(meta.name)
    peers = [{"podSelector": {"matchLabels": names.selector(ROUTER)}}, *_observers(settings)]
    return _policy(meta, component=ENGINE, ingress=[{"from": peers, "ports": [_tcp(ENGINE_PORT)]}])


def router_network_policy(meta: ServiceMeta, *, settings: Settings) -> dict[str, Any]:
    names = Names(meta.name)
    peers = [{"podSelector": {"matchLabels": names.selector(ENGINE)}}, *_observers(settings)]
    return _policy(
        meta,
        component=ROUTER,
        ingress=[{"ports": [_tcp(GATE_PORT)]}, {"from": peers, "ports": [_tcp(GATE_OPS_PORT)]}],
    )


def _observers(settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            "namespaceSelector": _selector(settings.prometheus_namespace_labels),
            "podSelector": _selector(settings.prometheus_pod_labels),
        },
        {
            "namespaceSelector": _selector({"kubernetes.io/metadata.name": settings.operator_namespace}),
            "podSelector": _selector(settings.operator_pod_labels),
        },
    ]


def _selector(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"matchLabels": dict(labels)} if labels else {}


def _tcp(port: int) -> dict[str, Any]:
    return {"port": port, "protocol": "TCP"}


def _policy(meta: ServiceMeta, *, component: str, ingress: list[dict[str, Any]]) -> dict[str, Any]:
    names = Names(meta.name)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": names.engine if component == ENGINE else names.router,
            "namespace": meta.namespace,
            "labels": names.labels(component),
            "ownerReferences": [owner_reference(meta)],
        },
        "spec": {
            "podSelector": {"matchLabels": names.selector(component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
