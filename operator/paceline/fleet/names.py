"""Names and labels of everything that belongs to one service: the one place where they are spelled.

The runtime, the router's discovery, NetworkPolicies and people's dashboards select by these, so a change
here is a change of the interface between versions.
"""

from __future__ import annotations

from dataclasses import dataclass

MANAGER = "paceline"
"""Field manager of every server-side apply, and value of the managed-by label."""

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_SERVICE = "paceline.dev/service"
LABEL_COMPONENT = "paceline.dev/component"
LABEL_VARIANT = "paceline.dev/variant"
LABEL_TENSOR_PARALLEL_SIZE = "paceline.dev/tensor-parallel-size"

ANNOTATION_TEMPLATE = "paceline.dev/template"
"""On a variant's Deployment: its pod template as first applied, reused for as long as the variant lives."""

ANNOTATION_INPUTS = "paceline.dev/template-inputs"
"""On a variant's Deployment: the parts of the spec that the template was made from."""

ANNOTATION_SERVED = "paceline.dev/has-served"
"""On a variant's Deployment: one of its pods was Ready once, so it is worth going back to."""

ANNOTATION_ASKED = "paceline.dev/asked-replicas"
"""On a variant's Deployment: the replicas last asked for at its tensor-parallel size. A number asked for at
another size says nothing about how many of these are needed."""

ANNOTATION_FOREIGN_WRITER = "paceline.dev/foreign-writer"
"""On the service: `keep` leaves a field to another manager for good."""

ENGINE = "engine"
ROUTER = "router"

ENGINE_PORT = 8000
LIVE_PORT = 8001
"""Of the launcher, which is there while the engine starts anew in another layout."""

GATE_PORT = 8080
GATE_OPS_PORT = 9090
ROUTER_LOOPBACK_PORT = 8010


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the children of one service.

    >>> Names("chat").variant("tp1-9f2c1a2b")
    'chat-tp1-9f2c1a2b'
    """

    service: str

    @property
    def engine(self) -> str:
        """ServiceAccount, PodDisruptionBudget and NetworkPolicy of the engine pods."""
        return f"{self.service}-engine"

    @property
    def router(self) -> str:
        """Deployment, ServiceAccount, Role, RoleBinding, budget and NetworkPolicy of the router pods."""
        return f"{self.service}-router"

    @property
    def routers(self) -> str:
        """Headless Service by which a draining engine pod finds every router pod, Ready or not."""
        return f"{self.service}-routers"

    @property
    def slo(self) -> str:
        return f"{self.service}-slo"

    def variant(self, variant: str) -> str:
        return f"{self.service}-{variant}"

    def labels(self, component: str) -> dict[str, str]:
        return {
            LABEL_MANAGED_BY: MANAGER,
            LABEL_NAME: f"paceline-{component}",
            LABEL_SERVICE: self.service,
            LABEL_COMPONENT: component,
        }

    def variant_labels(self, variant: str, *, tensor_parallel_size: int) -> dict[str, str]:
        return {
            **self.labels(ENGINE),
            LABEL_VARIANT: variant,
            LABEL_TENSOR_PARALLEL_SIZE: str(tensor_parallel_size),
        }

    def selector(self, component: str) -> dict[str, str]:
        """What selects the pods of a component: no more than these two, they are immutable in a
        Deployment."""
        return {LABEL_SERVICE: self.service, LABEL_COMPONENT: component}

    def selector_text(self, component: str) -> str:
        return ",".join(f"{key}={value}" for key, value in self.selector(component).items())


def child_keys(service: str) -> tuple[tuple[str, str], ...]:
    """(kind, name) of the children whose names do not depend on the spec.

    The controller looks them up by name too, because an object that is in the way need not carry our labels.
    """
    names = Names(service)
    return (
        ("ServiceAccount", names.engine),
        ("ServiceAccount", names.router),
        ("Role", names.router),
        ("RoleBinding", names.router),
        ("ConfigMap", names.slo),
        ("Service", names.service),
        ("Service", names.routers),
        ("PodDisruptionBudget", names.engine),
        ("PodDisruptionBudget", names.router),
        ("NetworkPolicy", names.engine),
        ("NetworkPolicy", names.router),
        ("Deployment", names.router),
        ("PodMonitor", names.service),
    )
