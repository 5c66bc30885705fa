"""How many GPUs the ResourceQuotas of a service's namespace still leave to its engine pods.

A quota refuses pods before a scheduler sees them: no pod stays Pending, none comes into being. So the planner
must know of it beforehand, as it knows the nodes. Asked by the decision loop; only the accelerator is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from paceline.api import InferenceService, quantity_value

_MATCHED: Final = frozenset({"NotTerminating", "NotBestEffort"})
"""Scopes that an engine pod is in: it has requests, and no activeDeadlineSeconds."""

_UNMATCHED: Final = frozenset({"Terminating", "BestEffort", "CrossNamespacePodAffinity"})


def gpus_left(service: InferenceService, quotas: Iterable[Mapping[str, Any]]) -> int | None:
    """Of the tightest quota, beside what is used already, the service's own GPUs among it. 0 where more is used
    than allowed. None: no quota counts these GPUs."""
    name = f"requests.{service.spec.accelerator.resource_name}"
    left = []
    for quota in quotas:
        status = quota.get("status") or {}
        hard = (status.get("hard") or (quota.get("spec") or {}).get("hard") or {}).get(name)
        if hard is None or not _counts(quota, priority_class=service.spec.placement.priority_class_name):
            continue
        used = (status.get("used") or {}).get(name, "0")
        left.append(max(int(quantity_value(str(hard))) - int(quantity_value(str(used))), 0))
    return min(left, default=None)


def _counts(quota: Mapping[str, Any], *, priority_class: str) -> bool:
    """Whether a quota is about engine pods. All its scopes must match; one that is not known is taken to."""
    spec = quota.get("spec") or {}
    expressions = [{"scopeName": one, "operator": "Exists"} for one in spec.get("scopes") or ()]
    expressions += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    return all(_matches(one, priority_class=priority_class) for one in expressions)


def _matches(expression: Mapping[str, Any], *, priority_class: str) -> bool:
    scope, operator = expression.get("scopeName"), expression.get("operator")
    if scope in _MATCHED:
        return True
    if scope in _UNMATCHED:
        return False
    if scope != "PriorityClass":
        return True
    named = priority_class in (expression.get("values") or ())
    match operator:
        case "In":
            return named
        case "NotIn":
            return not named
        case "Exists":
            return bool(priority_class)
        case "DoesNotExist":
            return not priority_class
    return True
