"""A pod is killed by the processes of its control group, and nobody else is."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import cgroups

NODE = "/paceline/paceline-1"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two trees, as v1 has: one that knows of the pod and has no process in it, one that has them all."""
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path)
    for tree in ("hugetlb", "pids"):
        (tmp_path / tree).mkdir()
        (tmp_path / tree / "cgroup.procs").write_text("1\n")
    return tmp_path


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def put(root: Path, tree: str, pod: str, *pids: int) -> None:
    group = root / tree / NODE.lstrip("/") / "kubepods" / "burstable" / f"pod{pod}" / "container"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


def test_a_pod_that_is_killed_is_dead_and_its_neighbour_lives(
    root: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    with subprocess.Popen(["sleep", "60"]) as neighbour:
        put(root, "hugetlb", "a-uid")
        put(root, "pids", "a-uid", sleeper.pid)
        put(root, "pids", "another-uid", neighbour.pid)
        assert cgroups.kill_pod(NODE, "a-uid")
        assert sleeper.wait(timeout=5) == -signal.SIGKILL
        assert neighbour.poll() is None
        neighbour.kill()


def test_a_pod_that_is_not_there_is_told(root: Path) -> None:
    put(root, "pids", "a-uid")
    assert not cgroups.kill_pod(NODE, "a-uid")
    assert not cgroups.kill_pod(NODE, "no-uid")


def test_a_pod_goes_before_everything_else_and_so_does_all_that_it_is_in(root: Path) -> None:
    put(root, "pids", "a-uid")
    put(root, "pids", "another-uid")
    for folder in (root / "pids").rglob("*"):
        if folder.is_dir():
            (folder / "cpu.shares").write_text("1024")
    assert cgroups.favour_pod(NODE, "a-uid")
    assert not cgroups.favour_pod(NODE, "no-uid")
    pods = root / "pids" / NODE.lstrip("/") / "kubepods" / "burstable"
    assert (pods / "poda-uid" / "cpu.shares").read_text() == "262144"
    assert (pods / "podanother-uid" / "cpu.shares").read_text() == "1024"
    assert (pods / "cpu.shares").read_text() == "262144"
    assert (root / "pids" / NODE.lstrip("/") / "cpu.shares").read_text() == "262144"
