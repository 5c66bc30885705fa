"""The steps of a service's transitions as the operator writes them, seen at once: some last less than a second.

    with StepWatch(tenant) as watch:
        tenant.change(…)
        watch.until("Draining", timeout_s=60)

A watch by kubectl in a process of its own, read by a thread.
"""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass

from e2e.kubectl import wait_for
from e2e.scenarios.tenant import KIND, Tenant

_FORMAT = 'jsonpath={.status.transition.id} {.status.transition.step}{"\\n"}'


@dataclass(frozen=True, slots=True)
class Seen:
    """A step of the transition with that number."""

    id: int
    step: str


class StepWatch:
    def __init__(self, tenant: Tenant) -> None:
        kubectl = tenant.kubectl
        self._words = (
            *(*kubectl.words, "--namespace", kubectl.namespace, "get", KIND, tenant.name),
            *("--watch", "-o", _FORMAT),
        )
        self._stop = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._seen: list[Seen] = []

    def __enter__(self) -> StepWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(timeout=10)

    def since(self, mark: int) -> list[Seen]:
        """Each step in the order in which it was written, from the mark on."""
        return self._seen[mark:]

    def mark(self) -> int:
        return len(self._seen)

    def until(self, step: str, *, since: int, timeout_s: float) -> None:
        wait_for(
            f"step {step}",
            lambda: any(one.step == step for one in self.since(since)),
            timeout_s=timeout_s,
            every_s=0.01,
        )

    def _run(self) -> None:
        # The API server ends a watch after half an hour or so.
        while not self._stop.is_set():
            self._process = subprocess.Popen(self._words, stdout=subprocess.PIPE, text=True)
            assert self._process.stdout is not None
            for line in self._process.stdout:
                number, _, step = line.strip().partition(" ")
                if step and (not self._seen or self._seen[-1] != Seen(int(number), step)):
                    self._seen.append(Seen(int(number), step))
            self._process.wait()
            self._stop.wait(0.5)
