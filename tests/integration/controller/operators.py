"""The operator as it runs: a process of its own, which a test starts, freezes, kills and reads the metrics
of."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.controller.cluster import Cluster, HttpError
from tests.integration.controller.programs import process

ROOT = Path(__file__).resolve().parents[3]
START_S = 300.0
"""It takes two seconds on an idle machine; the rest is for a busy one."""


@dataclass(slots=True)
class Operator:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=20)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def scrape(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (li.rpartition(" ") for li in lines if li[0] != "#")}

    def writes(self) -> float:
        """All that the API server accepted, the Lease apart."""
        return sum(
            v for name, v in self.scrape().items() if name.startswith("paceline_operator_writes_total")
        )

    def is_leading(self) -> bool:
        try:
            return self.scrape()["paceline_operator_leader"] == 1
        except OSError:
            return False

    def events(self) -> list[dict[str, Any]]:
        """The log, without lines that are not ours."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def await_leading(self) -> Operator:
        deadline_s = time.monotonic() + START_S
        while not self.is_leading():
            if not self.is_running or time.monotonic() > deadline_s:
                raise AssertionError(f"the operator does not lead:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        return self


@dataclass(slots=True)
class Operators:
    """Starts operators that serve one namespace, with their Lease in it."""

    cluster: Cluster
    folder: Path
    stack: ExitStack
    count: int = 0

    def start(
        self, *options: str, lease_s: int = 6, kubeconfig: Path | None = None, prelude: str = ""
    ) -> Operator:
        """Returns at once; `await_leading` waits. `prelude` is Python that its process runs before it."""
        self.count += 1
        port, log = _free_port(), self.folder / f"operator-{self.count}.log"
        command: list[Path | str] = [
            sys.executable, "-c", f"{prelude}\nfrom paceline.cli import main; main()", "operator",
            f"--kubeconfig={kubeconfig or self.cluster.plane.kubeconfig}",
            f"--namespace={self.cluster.namespace}",
            f"--lease-namespace={self.cluster.namespace}",
            f"--lease-duration-seconds={lease_s}",
            "--metrics-host=127.0.0.1", f"--metrics-port={port}",
            "--foreign-writer-grace-seconds=2",
            "--hub-endpoint=",
            *options,
        ]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT / 'runtime'}"}
        return Operator(self.stack.enter_context(process(command, log=log, env=env)), port, log)


def bury(cluster: Cluster, operator: Operator) -> None:
    """Kill it, and its Lease, which a dead process cannot hold: the successor need not wait."""
    operator.kill()
    try:
        cluster.delete("Lease", "paceline-operator")
    except HttpError as error:
        if error.status != 404:
            raise


@contextmanager
def operators(cluster: Cluster, folder: Path) -> Iterator[Operators]:
    with ExitStack() as stack:
        yield Operators(cluster, folder, stack)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
