"""The rest of a control plane beside the shared API server: the real controller manager and scheduler, and
a client.

No kubelet: pods stay Pending. A test that needs one Ready writes its status, which is the outer edge of
these tests.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.integration.control_plane import ControlPlane

_PR_SET_PDEATHSIG = 1
Program = Literal["kube-controller-manager", "kube-scheduler"]


@contextmanager
def beside(
    plane: ControlPlane, program: Program, *, folder: Path, flags: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """One more program of the control plane, as an administrator, until the end of the block."""
    command: list[Path | str] = [
        plane.binaries / program,
        f"--kubeconfig={plane.kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
        *flags,
    ]
    if program == "kube-controller-manager":
        command += ["--use-service-account-credentials=false"]
    with process(command, log=folder / f"{program}.log") as started:
        yield started


@contextmanager
def process(
    command: list[Path | str], *, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Started, and at the end asked to stop, then killed. A test run that is killed leaves nothing behind."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, stdout=output, stderr=output, env=env, preexec_fn=_end_with_parent
        )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
            try:
                started.wait(timeout=15)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
