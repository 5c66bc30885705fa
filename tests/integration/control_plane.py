"""A real etcd and a real kube-apiserver on free loopback ports, for the tests of this folder.
 No kubelet, no scheduler, no controllers: what is stored, defaulted, pruned and refused is real, and nothing
else moves. It is never skipped: without the binaries it fails and names the command that builds them.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

KUBERNETES_VERSION = "v1.34.4"
START_DEADLINE_S = 90
"""It takes about 5 s on an idle machine; the rest is for a busy one."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """How to reach it, as an administrator."""

    url: str
    token: str
    ca_file: Path
    kubeconfig: Path
    binaries: Path
    """The folder with kubectl and the rest."""

    pids: Mapping[str, int]
    """Of `etcd` and `kube-apiserver`."""


class ControlPlaneError(RuntimeError):
    """It cannot start. The message says which command helps, or shows the end of the log."""


def binaries() -> Path:
    cache = Path(os.environ.get("PACELINE_CACHE", Path.home() / ".cache" / "paceline"))
    folder = cache / "bin" / f"kubernetes-{KUBERNETES_VERSION}"
    missing = [name for name in ("server", "kube-apiserver", "kubectl") if not (folder / name).is_file()]
    if missing:
        raise ControlPlaneError(f"{', '.join(missing)} not in {folder}: run `make cluster-binaries`")
    return folder


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Started in `folder` (data, certificates, logs), stopped at the end."""
    found = binaries()
    etcd_port, peer_port, port = _free_ports(3)
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    key = folder / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    etcd: list[Path | str] = [
        found / "server",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
        f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    apiserver: list[Path | str] = [
        found / "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.99.0.0/16",
        # Nobody makes the default ServiceAccount of a namespace here.
        "--disable-admission-plugins=ServiceAccount",
        # A loopback address is no good endpoint for the Service `kubernetes`.
        "--endpoint-reconciler-type=none",
    ]
    with (
        _running(etcd, folder / "etcd.log") as store,
        _running(apiserver, folder / "apiserver.log") as server,
    ):
        plane = ControlPlane(
            url=f"https://127.0.0.1:{port}",
            token=token,
            ca_file=folder / "certificates" / "apiserver.crt",
            kubeconfig=folder / "kubeconfig",
            binaries=found,
            pids={"etcd": store.pid, "kube-apiserver": server.pid},
        )
        _await_ready(plane, server, folder / "apiserver.log")
        plane.kubeconfig.write_text(_kubeconfig(plane))
        yield plane


@contextmanager
def _running(command: list[Path | str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=_end_with_parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    """A test run that is killed must not leave servers behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _await_ready(plane: ControlPlane, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ControlPlaneError(
                f"kube-apiserver ended with {server.returncode}:\n{log.read_text()[-3000:]}"
            )
        try:
            # The server makes its certificate while it starts.
            context = ssl.create_default_context(cafile=str(plane.ca_file))
            request = urllib.request.Request(
                f"{plane.url}/readyz", headers={"Authorization": f"Bearer {plane.token}"}
            )
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise ControlPlaneError(f"kube-apiserver not ready in {START_DEADLINE_S} s:\n{log.read_text()[-3000:]}")


def _kubeconfig(plane: ControlPlane) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
            "clusters": [
                {
                    "name": "tests",
                    "cluster": {"server": plane.url, "certificate-authority": str(plane.ca_file)},
                }
            ],
            "users": [{"name": "admin", "user": {"token": plane.token}}],
        }
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
