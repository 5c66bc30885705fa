"""What is in a namespace once a service has settled, as lines that are the same whenever the state is.

Called by what disturbs the operator, which compares them with those of a transition in which nobody died and nothing broke.
It takes everything of the kinds that there are children of, whoever it belongs to: an orphan may have lost its label.
"""

from __future__ import annotations

from collections import Counter

from e2e.kubectl import NotReached, wait_for
from e2e.scenarios.tenant import Manifest, Tenant

KINDS = (
    "deployments,replicasets,pods,services,configmaps,serviceaccounts,roles,rolebindings,"
    "poddisruptionbudgets,networkpolicies,endpointslices"
)
CONVERGED_S = 60


def end_state(tenant: Tenant) -> list[str]:
    service = tenant.observe()
    status = service["status"]
    said = [
        *(f"{one['type']}={one['status']}" for one in status["conditions"]),
        f"shape {status['shape']['current']}",
        f"refused {status.get('refused')}",
        *(f"variant {one['name']}" for one in status["variants"]),
    ]
    objects = Counter(_line(one) for one in tenant.kubectl.list(KINDS))
    return sorted([*said, *(f"{count} {line}" for line, count in objects.items())])


def difference(tenant: Tenant, *, expected: list[str]) -> list[str]:
    """What there is and should not be, or the other way round, once it had time to converge."""
    try:
        wait_for("the same end", lambda: end_state(tenant) == expected, timeout_s=CONVERGED_S, every_s=2)
    except NotReached:
        return sorted(set(end_state(tenant)) ^ set(expected))
    return []


def _line(one: Manifest) -> str:
    """Its kind and name, or what it is of, where the name is drawn."""
    kind, meta = one["kind"], one["metadata"]
    labels = meta.get("labels", {})
    match kind:
        case "Pod":
            return f"Pod of {labels.get('pod-template-hash')} {labels.get('paceline.dev/component')}"
        case "EndpointSlice":
            return f"EndpointSlice of {labels.get('kubernetes.io/service-name')}"
        case "Deployment":
            spec, seen = one["spec"], one["status"]
            return f"Deployment {meta['name']} {seen.get('readyReplicas', 0)}/{spec['replicas']}"
        case _:
            return f"{kind} {meta['name']}"
