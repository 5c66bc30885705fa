"""The cluster's own programs, built from pinned Go modules and kept by version.

Called by ``up`` and ``build``. ``go install pkg@version`` refuses Kubernetes (its module replaces its
staging modules), so each program has a small module of ours in ``modules/`` that requires it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout
from e2e.cluster.progress import step
from e2e.cluster.shell import run_logged

MODULES = Path(__file__).parent / "modules"
BUILD_TIMEOUT_S = 3600

_KUBERNETES_COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)


@dataclass(frozen=True, slots=True)
class Programs:
    """What one module builds: packages in, files of one folder out."""

    module: str
    folder_name: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    link_flags: str = "-s -w"
    tags: str = ""

    def folder(self, layout: Layout) -> Path:
        return layout.binaries / self.folder_name

    def are_built(self, layout: Layout) -> bool:
        return all((self.folder(layout) / file).is_file() for file in self.files)

    def ensure(self, layout: Layout) -> Path:
        """The folder that holds the programs; they are built when one of them is missing."""
        folder = self.folder(layout)
        if self.are_built(layout):
            return folder
        if shutil.which("go") is None:
            raise ClusterError(
                "go is not installed: install Go (see e2e/cluster/modules/*/go.mod for the version)"
            )
        building = folder.with_name(folder.name + ".building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        with step(f"building {', '.join(self.files)} (once; minutes, log in {folder.name}.log)"):
            run_logged(
                [
                    "nice",
                    "go",
                    "build",
                    "-trimpath",
                    "-tags",
                    self.tags,
                    "-ldflags",
                    self.link_flags,
                    "-o",
                    f"{building}/",
                    *self.packages,
                ],
                log=layout.binaries / f"{folder.name}.log",
                timeout_s=BUILD_TIMEOUT_S,
                cwd=MODULES / self.module,
                env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
            )
        missing = [file for file in self.files if not (building / file).is_file()]
        if missing:
            raise ClusterError(f"module {self.module} did not build {', '.join(missing)}: check its packages")
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
        return folder


def required_version(go_mod: str, module: str) -> str:
    """The version of ``module`` that the text of a go.mod requires, with its ``v``."""
    found = re.search(rf"^(?:require\s+|\t){re.escape(module)}\s+(v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ClusterError(f"go.mod does not require {module}: add it")
    return found.group(1)


def kubernetes() -> Programs:
    """The control plane, the node and etcd (whose package names its program ``server``)."""
    version = required_version((MODULES / "kubernetes" / "go.mod").read_text(), "k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    # Without these a client takes the API server for v0.0.0 and refuses what it needs a version for.
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamps.items())
    return Programs(
        module="kubernetes",
        folder_name=f"kubernetes-{version}",
        packages=(
            *(f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_COMMANDS),
            "go.etcd.io/etcd/server/v3",
        ),
        files=(*_KUBERNETES_COMMANDS, "server"),
        link_flags=f"-s -w {flags}",
    )


def own_program(module: str) -> Programs:
    """One program that the cluster runs in a pod, kept by the hash of its module's files."""
    digest = hashlib.sha256()
    for path in sorted((MODULES / module).iterdir()):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    package, tags = _FOREIGN_MAINS.get(module, (".", ""))
    return Programs(
        module=module,
        folder_name=f"{module}-{digest.hexdigest()[:12]}",
        packages=(package,),
        files=(module,),
        tags=tags,
    )


_FOREIGN_MAINS = {
    "prometheus": ("github.com/prometheus/prometheus/cmd/prometheus", "remove_all_sd,enable_kubernetes_sd"),
}
"""Modules whose ``main`` is another module's: its package and build tags."""

POD_PROGRAMS = ("coredns", "device-plugin", "prometheus")


def all_programs() -> tuple[Programs, ...]:
    return (kubernetes(), *(own_program(module) for module in POD_PROGRAMS))
