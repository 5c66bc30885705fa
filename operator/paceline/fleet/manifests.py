"""Every object of one service apart from the engine Deployments, in the order in which they are applied.

What an engine pod needs to exist comes first, then its Deployment, then the rest: the time from the
creation of a service to its first pod is the sum of the few writes before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from paceline.api import InferenceService
from paceline.fleet import rbac
from paceline.fleet.disruption import engine_disruption_budget, router_disruption_budget
from paceline.fleet.names import Names
from paceline.fleet.network import engine_network_policy, router_network_policy
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.pod_monitor import pod_monitor, wants_pod_monitor
from paceline.fleet.router_deployment import router_deployment
from paceline.fleet.services import public_service, routers_service
from paceline.fleet.settings import Settings
from paceline.fleet.slo_config import slo_config
from paceline_core import Reference

Manifest = dict[str, Any]

BEFORE_ENGINES = 10
ENGINES = 20
AFTER_ENGINES = 30


def prerequisites(
    service: InferenceService, *, meta: ServiceMeta, canary: Reference | None
) -> Iterator[Manifest]:
    """Without these an engine pod cannot be made, or hangs in ContainerCreating for a minute."""
    yield rbac.engine_service_account(meta)
    yield slo_config(service, meta=meta, canary=canary)


def surroundings(service: InferenceService, *, meta: ServiceMeta, settings: Settings) -> Iterator[Manifest]:
    managed = service.spec.endpoint.network_policy == "Managed"
    if managed:
        yield engine_network_policy(meta, settings=settings)
    yield engine_disruption_budget(service, meta=meta)
    yield rbac.router_service_account(meta)
    yield rbac.router_role(meta)
    yield rbac.router_role_binding(meta)
    if managed:
        yield router_network_policy(meta, settings=settings)
    yield public_service(meta)
    yield routers_service(meta)
    yield router_deployment(service, meta=meta, settings=settings)
    yield router_disruption_budget(meta)
    if wants_pod_monitor(service, settings=settings):
        yield pod_monitor(service, meta=meta, settings=settings)


def unwanted(
    service: InferenceService, *, meta: ServiceMeta, settings: Settings
) -> Iterator[tuple[str, str]]:
    """(kind, name) of the optional children that this spec does not ask for."""
    names = Names(meta.name)
    if service.spec.endpoint.network_policy == "None":
        yield ("NetworkPolicy", names.engine)
        yield ("NetworkPolicy", names.router)
    if not wants_pod_monitor(service, settings=settings):
        yield ("PodMonitor", names.service)
