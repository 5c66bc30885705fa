"""The kinds that the operator reads or writes, and their addresses in the API. A table, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from paceline.api.base import API_VERSION, KIND, PLURAL

SERVICE_LABEL = "paceline.dev/service"
"""On every child and every pod; its value is the name of the InferenceService in the same namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def root(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The address of one object, or of all of them in a namespace or in the cluster (no `name`)."""
        parts = [self.root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


INFERENCE_SERVICE = Resource(api_version=API_VERSION, kind=KIND, plural=PLURAL)
POD = Resource(api_version="v1", kind="Pod", plural="pods")
NODE = Resource(api_version="v1", kind="Node", plural="nodes", namespaced=False)
RESOURCE_QUOTA = Resource(api_version="v1", kind="ResourceQuota", plural="resourcequotas")
SECRET = Resource(api_version="v1", kind="Secret", plural="secrets")
EVENT = Resource(api_version="v1", kind="Event", plural="events")
LEASE = Resource(api_version="coordination.k8s.io/v1", kind="Lease", plural="leases")
POD_MONITOR = Resource(api_version="monitoring.coreos.com/v1", kind="PodMonitor", plural="podmonitors")

CHILDREN: tuple[Resource, ...] = (
    Resource(api_version="v1", kind="ServiceAccount", plural="serviceaccounts"),
    Resource(api_version="rbac.authorization.k8s.io/v1", kind="Role", plural="roles"),
    Resource(api_version="rbac.authorization.k8s.io/v1", kind="RoleBinding", plural="rolebindings"),
    Resource(api_version="v1", kind="ConfigMap", plural="configmaps"),
    Resource(api_version="v1", kind="Service", plural="services"),
    Resource(api_version="policy/v1", kind="PodDisruptionBudget", plural="poddisruptionbudgets"),
    Resource(api_version="networking.k8s.io/v1", kind="NetworkPolicy", plural="networkpolicies"),
    Resource(api_version="apps/v1", kind="Deployment", plural="deployments"),
    POD_MONITOR,
)
"""`fleet.CHILD_KINDS` with addresses; a test holds the two together."""

CHILD_OF_KIND = {resource.kind: resource for resource in CHILDREN}
DELETABLE_OF_KIND = {**CHILD_OF_KIND, POD.kind: POD}
WATCHED = (INFERENCE_SERVICE, *CHILDREN, POD, NODE)
