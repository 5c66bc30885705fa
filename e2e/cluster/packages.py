"""Debian's own packages that a node and an image build need, installed only where they are missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout
from e2e.cluster.progress import step
from e2e.cluster.shell import run_logged

_SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"

NODE_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "socat": "socat",
    "ebtables": "ebtables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Program -> the package that brings it."""

BUILD_PACKAGES = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "busybox": "busybox-static",
}


def missing_packages(wanted: dict[str, str]) -> list[str]:
    def is_there(program: str) -> bool:
        return (
            Path(program).exists()
            if program.startswith("/")
            else shutil.which(program, path=_SEARCH) is not None
        )

    return sorted({package for program, package in wanted.items() if not is_there(program)})


def ensure_packages(wanted: dict[str, str], layout: Layout) -> None:
    missing = missing_packages(wanted)
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"missing: {', '.join(missing)}; install them (this machine has no apt-get)")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing {', '.join(missing)}"):
        run_logged(["apt-get", "update"], log=layout.logs / "apt-update.log", timeout_s=600, env=env)
        run_logged(
            ["apt-get", "install", "-y", "--no-install-recommends", *missing],
            log=layout.logs / "apt-install.log",
            timeout_s=1200,
            env=env,
        )
