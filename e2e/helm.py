"""Helm, built once from the Go module that `e2e/cluster/modules/helm` pins, and run from the cache.

Called by the Makefile (`python -m e2e.helm` builds it), by the demo and by every test that renders or
installs the chart. It knows nothing about Paceline's chart: names and values come from the caller. It must
not download a ready-made binary: what runs is what go.sum vouches for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_MODULE = Path(__file__).parent / "cluster" / "modules" / "helm"
_HELM_PACKAGE = "helm.sh/helm/v3"


class HelmError(Exception):
    """Helm could not be built, or refused what it was asked; the message is Helm's own."""


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


def pinned_version() -> str:
    """The version that the module requires, with its leading v."""
    required = re.search(rf"^require {re.escape(_HELM_PACKAGE)} (v\S+)$", _go_mod(), re.MULTILINE)
    if required is None:
        raise HelmError(f"{_MODULE / 'go.mod'} has no line `require {_HELM_PACKAGE} v…`: restore it")
    return required.group(1)


def binary_path() -> Path:
    cache = Path(os.environ.get("PACELINE_CACHE") or Path.home() / ".cache" / "paceline")
    return cache / "bin" / f"helm-{pinned_version()}" / "helm"


def installed(kubeconfig: Path | None = None) -> Helm:
    """The Helm of the cache; HelmError, naming the command that builds it, where there is none."""
    path = binary_path()
    if not path.exists():
        raise HelmError(f"{path} is missing: run `make helm`")
    return Helm(path, kubeconfig=kubeconfig)


def build() -> Path:
    """Build Helm into the cache unless it is there. About a minute on two cores."""
    target = binary_path()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    version = pinned_version()
    kubernetes_minor = _kubernetes_minor()
    # Without these, Helm believes in Kubernetes 1.20 and refuses a chart that asks for a newer one.
    settings = {
        "helm.sh/helm/v3/internal/version.version": version,
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": "1",
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": kubernetes_minor,
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor": "1",
        "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor": kubernetes_minor,
    }
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in settings.items())])
    # Built beside its place and moved, so that an interrupted build never looks like a finished one.
    with tempfile.TemporaryDirectory(dir=target.parent) as workshop:
        unfinished = Path(workshop) / "helm"
        command = ["nice", "go", "build", "-trimpath", "-ldflags", flags, "-o", str(unfinished)]
        built = subprocess.run(
            [*command, f"{_HELM_PACKAGE}/cmd/helm"],
            cwd=_MODULE,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=False,
        )
        if built.returncode != 0:
            raise HelmError(f"go could not build Helm {version} (see above); go.mod says which Go it needs")
        unfinished.rename(target)
    return target


def _go_mod() -> str:
    return (_MODULE / "go.mod").read_text(encoding="utf-8")


def _kubernetes_minor() -> str:
    client = re.search(r"^\s+k8s\.io/client-go v0\.(\d+)\.", _go_mod(), re.MULTILINE)
    if client is None:
        raise HelmError(f"{_MODULE / 'go.mod'} names no k8s.io/client-go: run `go mod tidy` there")
    return client.group(1)


def main() -> int:
    started = time.monotonic()
    if not binary_path().exists():
        print(f"building Helm {pinned_version()} from Go modules, once (about a minute) …", flush=True)
    try:
        path = build()
    except HelmError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path} ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
