"""Helm, built once from the Go module that `e2e/cluster/modules/helm` pins, and run from the cache.

Called by the Makefile (`python -m e2e.helm` builds it), by the demo and by every test that renders or
installs the chart. It knows nothing about Paceline's chart: names and values come from the caller. It must
not download a ready-made binary: what runs is what go.sum vouches for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.binaries import MODULES, Programs, required_version
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout


class HelmError(Exception):
    """Helm is not there, or refused what it was asked; the message is then Helm's own."""


@dataclass(frozen=True, slots=True)
class Helm:
    """A Helm binary bound to one cluster, or to none (`template` and `lint` need none)."""

    binary: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str, input_text: str | None = None, timeout_s: float = 120) -> str:
        """Run Helm and return its standard output; raise HelmError with its own message otherwise."""
        environment = dict(os.environ)
        if self.kubeconfig is not None:
            environment["KUBECONFIG"] = str(self.kubeconfig)
        finished = subprocess.run(
            [str(self.binary), *arguments],
            input=input_text,
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
        if finished.returncode != 0:
            raise HelmError((finished.stderr + finished.stdout).strip())
        return finished.stdout


def program() -> Programs:
    """Helm among the programs that are built from Go modules. About a minute on two cores."""
    go_mod = (MODULES / "helm" / "go.mod").read_text(encoding="utf-8")
    version = required_version(go_mod, "helm.sh/helm/v3")
    # Without these, Helm believes in Kubernetes 1.20 and refuses a chart that asks for a newer one.
    kubernetes_minor = required_version(go_mod, "k8s.io/client-go").split(".")[1]
    settings = {
        "internal/version.version": version,
        "pkg/chartutil.k8sVersionMajor": "1",
        "pkg/chartutil.k8sVersionMinor": kubernetes_minor,
        "pkg/lint/rules.k8sVersionMajor": "1",
        "pkg/lint/rules.k8sVersionMinor": kubernetes_minor,
    }
    flags = " ".join(f"-X helm.sh/helm/v3/{name}={value}" for name, value in settings.items())
    return Programs(
        module="helm",
        folder_name=f"helm-{version}",
        packages=("helm.sh/helm/v3/cmd/helm",),
        files=("helm",),
        link_flags=f"-s -w {flags}",
    )


def installed(kubeconfig: Path | None = None) -> Helm:
    """The Helm of the cache; HelmError, naming the command that builds it, where there is none."""
    layout, helm = Layout.from_environment(), program()
    if not helm.are_built(layout):
        raise HelmError(f"{helm.folder(layout)} is missing: run `make helm`")
    return Helm(helm.folder(layout) / "helm", kubeconfig=kubeconfig)


def main() -> int:
    started_s = time.monotonic()
    try:
        folder = program().ensure(Layout.from_environment())
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{folder / 'helm'} ({time.monotonic() - started_s:.0f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
