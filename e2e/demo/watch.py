"""kubectl, as the demo uses it: apply, read one object, and tell what changes while one waits."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KIND = "inferenceservices.paceline.dev"
QUIET_S = 10.0
"""With nothing new for this long, a sign of life is told."""

WORTH_TELLING = frozenset({"Ready", "Progressing", "ModelLoaded", "RouterReady", "CapacityAvailable"})
"""Conditions whose every value says something of a start. The others matter when they are True."""

Body = dict[str, Any]


class NotReady(Exception):
    """The service did not become Ready; the message says what was seen last."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    words: tuple[str, ...]

    def run(self, *arguments: str, input_text: str | None = None, timeout_s: float = 60) -> str:
        finished = subprocess.run(
            [*self.words, *arguments],
            input=input_text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if finished.returncode != 0:
            raise NotReady(f"kubectl {' '.join(arguments)}: {finished.stderr.strip()}")
        return finished.stdout

    def get(self, kind: str, name: str, *, namespace: str) -> Body:
        body: Body = json.loads(self.run("get", kind, name, "-n", namespace, "-o", "json"))
        return body

    def apply(self, manifest: Path, *, namespace: str) -> None:
        self.run("apply", "--server-side", "-n", namespace, "-f", str(manifest))

    def last_line_of_engine(self, name: str, *, namespace: str) -> str:
        """Of its log; nothing where there is none yet."""
        selector = f"paceline.dev/service={name},paceline.dev/component=engine"
        try:
            log = self.run("logs", "-n", namespace, "-l", selector, "--tail=1").splitlines()
        except NotReady:
            return ""
        return log[-1][:90] if log else ""

    def ensure_namespace(self, name: str) -> None:
        """With the restricted Pod Security Standard enforced: what Paceline starts there must pass it."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.run("apply", "--server-side", "-f", "-", input_text=json.dumps(body))


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


def wait_ready(
    kubectl: Kubectl, name: str, *, namespace: str, timeout_s: float, tell: Callable[[str], None]
) -> Body:
    """Every change of a condition goes to `tell`, once; between them, what the engine is at."""
    started_s = told_s = time.monotonic()
    known: dict[str, str] = {}
    while True:
        service = kubectl.get(KIND, name, namespace=namespace)
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
            tell(f"{now_s - started_s:6.0f} s  {kubectl.last_line_of_engine(name, namespace=namespace)}")
            told_s = now_s
        if now_s - started_s > timeout_s:
            last = known.get("Ready", "no condition Ready at all: does the operator run?")
            raise NotReady(f"{name} is not Ready after {timeout_s:.0f} s: {last}")
        time.sleep(1)
