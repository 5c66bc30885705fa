"""Which cluster the demo runs on, and how this machine reaches a Service in it.

`PACELINE_CONTEXT=NAME` names a context of your kubeconfig: then Paceline's images must be where its chart
looks for them. Otherwise it is the local cluster of `python -m e2e.cluster`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from e2e.cluster.choice import Cluster, open_cluster
from e2e.cluster.layout import Layout
from e2e.demo.prepare import DEMO_IMAGES, prepare
from e2e.demo.watch import NotReady
from e2e.helm import program


class Where(Protocol):
    """A cluster that can be prepared, spoken to, and reached."""

    @property
    def title(self) -> str: ...
    @property
    def kubectl(self) -> tuple[str, ...]: ...
    @property
    def helm_flags(self) -> tuple[str, ...]: ...
    @property
    def hint(self) -> str:
        """What to type so that kubectl speaks to this cluster."""
        ...

    def prepare(self) -> None:
        """Make what is missing on this machine; the first time that takes long."""
        ...

    def start(self) -> None: ...
    def bring_images(self) -> None: ...
    @contextmanager
    def reach(self, service: str, *, cluster_ip: str) -> Iterator[str]:
        """`http://host:port` of the Service, for as long as the block lasts."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """The cluster of `python -m e2e.cluster`, whose Services this machine reaches."""

    cluster: Cluster = field(default_factory=lambda: open_cluster(Layout.from_environment()))

    @property
    def title(self) -> str:
        return "a real Kubernetes cluster on this machine"

    @property
    def kubectl(self) -> tuple[str, ...]:
        return self.cluster.kubectl_words()

    @property
    def helm_flags(self) -> tuple[str, ...]:
        return ("--kubeconfig", str(self.cluster.layout.kubeconfig), "--set", "images.tag=dev")

    @property
    def hint(self) -> str:
        kubectl = Path(self.kubectl[0])
        return f"export KUBECONFIG={self.cluster.layout.kubeconfig} PATH={kubectl.parent}:$PATH"

    def prepare(self) -> None:
        prepare(self.cluster.layout)

    def start(self) -> None:
        self.cluster.up(None)

    def bring_images(self) -> None:
        self.cluster.ensure_images(DEMO_IMAGES)

    @contextmanager
    def reach(self, service: str, *, cluster_ip: str) -> Iterator[str]:
        yield f"http://{cluster_ip}"


@dataclass(frozen=True, slots=True)
class Context:
    """A cluster of yours, by the name of its context."""

    name: str

    @property
    def title(self) -> str:
        return f"your cluster, context {self.name}"

    @property
    def kubectl(self) -> tuple[str, ...]:
        return ("kubectl", "--context", self.name)

    @property
    def helm_flags(self) -> tuple[str, ...]:
        return ("--kube-context", self.name)

    @property
    def hint(self) -> str:
        return f"kubectl config use-context {self.name}"

    def prepare(self) -> None:
        program().ensure(Layout.from_environment())

    def start(self) -> None:
        subprocess.run([*self.kubectl, "get", "--raw", "/readyz"], check=True, timeout=30)

    def bring_images(self) -> None:
        """They come from the registry that the chart names."""

    @contextmanager
    def reach(self, service: str, *, cluster_ip: str) -> Iterator[str]:
        with _forwarded(self.kubectl, service) as url:
            yield url


@contextmanager
def _forwarded(kubectl: tuple[str, ...], service: str) -> Iterator[str]:
    """The Service on a loopback port of this machine, by kubectl's own tunnel."""
    words = [*kubectl, "port-forward", f"service/{service}", "--address", "127.0.0.1", ":80"]
    forward = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout is not None
        line = forward.stdout.readline()
        port = re.search(r"127\.0\.0\.1:(\d+)", line)
        if port is None:
            raise NotReady(f"kubectl port-forward did not say which port it took: {line!r}")
        yield f"http://127.0.0.1:{port.group(1)}"
    finally:
        forward.terminate()
        forward.wait(timeout=10)


def choose() -> Where:
    name = os.environ.get("PACELINE_CONTEXT", "")
    return Context(name) if name else Local()
