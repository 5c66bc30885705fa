"""The control groups that nodes leave behind: they outlive the processes that were in them.

Called when a node or the cluster went down. Works on cgroup v1 (a tree per controller) and v2 (one tree).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def _trees(cgroup: str) -> Iterator[Path]:
    for root in (_ROOT, *(child for child in _ROOT.iterdir() if child.is_dir() and not child.is_symlink())):
        folder = root / cgroup.lstrip("/")
        if (root / "cgroup.procs").exists() and folder.is_dir():
            yield folder


def _processes(cgroup: str) -> set[int]:
    found: set[int] = set()
    for tree in _trees(cgroup):
        for procs in tree.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(word) for word in procs.read_text().split())
    return found - {0}


def remove(cgroup: str, *, timeout_s: float = 10) -> None:
    """End whatever still runs in ``cgroup`` and remove its folders, deepest first."""
    end = time.monotonic() + timeout_s
    while (left := _processes(cgroup)) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for tree in _trees(cgroup):
        for folder, _, _ in os.walk(tree, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
