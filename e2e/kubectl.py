"""kubectl as the demo and the scenarios use it: the same program, the same words that a user types.

It never keeps state: every answer is read from the cluster at the call.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class KubectlError(RuntimeError):
    """kubectl ended with an error, or not in time; the message is what it wrote to standard error."""


class NotReached(AssertionError):
    """A state that a scenario waited for did not come in time; the message says what was seen last."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl bound to one cluster and one namespace."""

    words: tuple[str, ...]
    """The program, and the flags that choose the cluster."""
    namespace: str

    def run(self, *args: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Run kubectl and return its standard output; :class:`KubectlError` when it fails."""
        try:
            done = subprocess.run(
                [*self.words, "--namespace", self.namespace, *args],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"kubectl {' '.join(args)}: no answer within {timeout_s:g} s") from error
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.run("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("get", kind, name, "-o", "json"))
        return answer

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object, or None where there is none."""
        text = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        args = ["get", kind, "-o", "json", *(["-l", selector] if selector else [])]
        items: list[dict[str, Any]] = json.loads(self.run(*args))["items"]
        return items

    def patch(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        self.run("patch", kind, name, "--type", "merge", "-p", json.dumps(patch))

    def in_namespace(self, namespace: str) -> Kubectl:
        return Kubectl(words=self.words, namespace=namespace)


def wait_for(what: str, probe: Callable[[], T | None], *, timeout_s: float, every_s: float = 0.5) -> T:
    """The first answer of ``probe`` that is neither None nor False, asked again until ``timeout_s`` have passed."""
    end = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < end:
        try:
            answer = probe()
        except KubectlError as error:
            last = error
        else:
            if answer is not None and answer is not False:
                return answer
            last = answer
        time.sleep(every_s)
    raise NotReached(f"{what}: not within {timeout_s:g} s; last seen: {last!r}")
