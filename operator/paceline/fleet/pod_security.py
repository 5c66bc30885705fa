"""Security contexts that pass the *restricted* Pod Security Standard, the same for every pod of ours."""

from __future__ import annotations

from typing import Any

USER = 65532
"""`nonroot` of the images; a number, so that the kubelet can check runAsNonRoot without the image's user
table."""


def pod_security_context() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # A weights volume holds hundreds of gigabytes: no recursive chown at every start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security_context() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
