"""A pod of somebody else that holds GPUs of the only node, waits for them, or takes them."""

from __future__ import annotations

from typing import Any

from e2e.kubectl import wait_for
from e2e.scenarios.tenant import Tenant

Manifest = dict[str, Any]
NAME = "rival"
PRIORITY = "paceline-rival"
"""The PriorityClass of one that takes what others hold; it stays in the cluster."""

PATIENT = "paceline-rival-patient"
"""Of one that takes nothing from anybody, and goes before others where something is free."""


def holds_gpus(tenant: Tenant, *, gpus: int) -> None:
    """It runs from here on."""
    _come(tenant, gpus=gpus)
    wait_for("the rival runs", lambda: runs(tenant), timeout_s=60)


def waits_for_gpus(tenant: Tenant, *, gpus: int) -> None:
    """It takes them as soon as they are free."""
    _come(tenant, gpus=gpus)
    wait_for("the scheduler has looked", lambda: is_pending(tenant), timeout_s=60)


def waits_first_in_line(tenant: Tenant, *, gpus: int) -> None:
    """The same, and before everybody else who waits."""
    _priority(tenant, PATIENT, preemptionPolicy="Never")
    _come(tenant, gpus=gpus, priority=PATIENT)
    wait_for("the scheduler has looked", lambda: is_pending(tenant), timeout_s=60)


def takes_gpus(tenant: Tenant, *, gpus: int) -> None:
    """From pods of a lower priority, if they are not free: those that started last are ended for it."""
    _priority(tenant, PRIORITY)
    _come(tenant, gpus=gpus, priority=PRIORITY)
    wait_for("the rival runs", lambda: runs(tenant), timeout_s=60)


def is_pending(tenant: Tenant) -> bool:
    conditions = tenant.kubectl.get("pod", NAME)["status"].get("conditions", [])
    return any(c["type"] == "PodScheduled" and c.get("reason") == "Unschedulable" for c in conditions)


def runs(tenant: Tenant) -> bool:
    return _phase(tenant) == "Running"


def gives_them_back(tenant: Tenant) -> None:
    tenant.kubectl.run("delete", "pod", NAME, "--wait=true")


def _priority(tenant: Tenant, name: str, **more: str) -> None:
    tenant.kubectl.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": 1_000_000,
            **more,
        }
    )


def _come(tenant: Tenant, *, gpus: int, priority: str | None = None) -> None:
    """Its image is an engine's, which the node has."""
    wait_for("an engine", lambda: bool(tenant.engines()), timeout_s=60)
    image = str(tenant.engines()[0]["spec"]["containers"][0]["image"])
    pod = _pod(image, gpus=gpus)
    if priority is not None:
        pod["spec"]["priorityClassName"] = priority
    tenant.kubectl.apply(pod)


def _phase(tenant: Tenant) -> str:
    return str(tenant.kubectl.get("pod", NAME)["status"].get("phase"))


def _pod(image: str, *, gpus: int) -> Manifest:
    amounts = {"nvidia.com/gpu": str(gpus), "cpu": "10m", "memory": "32Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "holds",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "3600"],
                    "resources": {"requests": amounts, "limits": amounts},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
