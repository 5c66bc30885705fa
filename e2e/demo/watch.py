"""Waits for a service and tells what changes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from e2e.kubectl import Kubectl, KubectlError

KIND = "inferenceservices.paceline.dev"
QUIET_S = 10.0
"""With nothing new for this long, a sign of life is told."""

WORTH_TELLING = frozenset({"Ready", "Progressing", "ModelLoaded", "RouterReady", "CapacityAvailable"})
"""Conditions whose every value says something of a start. The others matter when they are True."""

Body = dict[str, Any]


class NotReady(Exception):
    """The service did not become Ready; the message says what was seen last."""


def conditions(service: Body) -> dict[str, str]:
    """Type -> what a person wants to read of it while a service starts."""
    told = {}
    for condition in service.get("status", {}).get("conditions", []):
        if condition["status"] == "Unknown":
            continue
        if condition["type"] not in WORTH_TELLING and condition["status"] != "True":
            continue
        words = [condition["status"], condition.get("reason", ""), condition.get("message", "")]
        told[condition["type"]] = "  ".join(word for word in words if word)
    return told


def is_ready(service: Body) -> bool:
    status = service.get("status", {})
    current = status.get("observedGeneration") == service["metadata"]["generation"]
    return current and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])
    )


def wait_ready(kubectl: Kubectl, name: str, *, timeout_s: float, tell: Callable[[str], None]) -> Body:
    """Every change of a condition goes to `tell`, once; between them, what the engine is at."""
    started_s = told_s = time.monotonic()
    known: dict[str, str] = {}
    while True:
        service = kubectl.get(KIND, name)
        seen = conditions(service)
        for kind, text in seen.items():
            if known.get(kind) != text:
                tell(f"{kind:<18} {text}")
                told_s = time.monotonic()
        known = seen
        if is_ready(service):
            return service
        now_s = time.monotonic()
        if now_s - told_s > QUIET_S:
            tell(f"{now_s - started_s:6.0f} s  {_last_line_of_engine(kubectl, name)}")
            told_s = now_s
        if now_s - started_s > timeout_s:
            last = known.get("Ready", "no condition Ready at all: does the operator run?")
            raise NotReady(f"{name} is not Ready after {timeout_s:.0f} s: {last}")
        time.sleep(1)


def _last_line_of_engine(kubectl: Kubectl, name: str) -> str:
    """Of its log; nothing where there is none yet."""
    selector = f"paceline.dev/service={name},paceline.dev/component=engine"
    try:
        log = kubectl.run("logs", "-l", selector, "--tail=1").splitlines()
    except KubectlError:
        return ""
    return log[-1][:90] if log else ""
