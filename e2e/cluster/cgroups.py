"""The control groups of nodes and of their pods: who is in them, their share of the processor, and their end.

Called when a node or the cluster went down, whose groups outlive the processes that were in them, to kill a pod, and to
let one go before everything else.
Works on cgroup v1 (a tree per controller) and v2 (one tree).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MOST = {"cpu.weight": 10_000, "cpu.shares": 262_144}
"""By the file that says how much of the processor a group has beside its neighbours: v2, v1."""


def _trees(cgroup: str) -> Iterator[Path]:
    for root in (_ROOT, *(child for child in _ROOT.iterdir() if child.is_dir() and not child.is_symlink())):
        folder = root / cgroup.lstrip("/")
        if (root / "cgroup.procs").exists() and folder.is_dir():
            yield folder


def _processes(trees: Iterable[Path]) -> set[int]:
    found: set[int] = set()
    for tree in trees:
        for procs in tree.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(word) for word in procs.read_text().split())
    return found - {0}


def _kill(processes: Iterable[int]) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_pod(cgroup: str, uid: str) -> bool:
    """SIGKILL every process of a pod of the node with ``cgroup``; False where it has none of that pod."""
    groups = (group for tree in _trees(cgroup) for group in tree.rglob(f"pod{uid}"))
    # On v1 each of a dozen trees has them: one that does is enough.
    processes = next(filter(None, (_processes((group,)) for group in groups)), set())
    _kill(processes)
    return bool(processes)


def favour_pod(cgroup: str, uid: str) -> bool:
    """The pod and every group that it is in get all the weight there is; False where the node has no such pod."""
    groups = [group for tree in _trees(cgroup) for group in tree.rglob(f"pod{uid}")]
    for group in groups:
        for folder in (group, *group.parents):
            for name, most in _MOST.items():
                if folder != _ROOT and (folder / name).exists():
                    # The root of a tree has the file and takes no number.
                    with contextlib.suppress(OSError):
                        (folder / name).write_text(str(most))
    return bool(groups)


def remove(cgroup: str, *, timeout_s: float = 10) -> None:
    """End whatever still runs in ``cgroup`` and remove its folders, deepest first."""
    end = time.monotonic() + timeout_s
    while (left := _processes(_trees(cgroup))) and time.monotonic() < end:
        _kill(left)
        time.sleep(0.05)
    for tree in _trees(cgroup):
        for folder, _, _ in os.walk(tree, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
