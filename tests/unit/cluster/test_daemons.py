"""Records of processes: what is ours is found and stopped, what is not is left alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from e2e.cluster.daemons import Daemons
from e2e.cluster.errors import ClusterError


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(records=tmp_path / "records", logs=tmp_path / "logs")
    yield daemons
    for name in daemons.names():
        daemons.stop(name, kill=True)


def test_a_started_daemon_runs_until_it_is_stopped(daemons: Daemons) -> None:
    daemons.start("sleeper", ["sleep", "60"])
    assert daemons.is_running("sleeper")
    daemons.stop("sleeper")
    assert not daemons.is_running("sleeper")
    assert daemons.names() == []


def test_a_daemon_that_ignores_sigterm_is_killed(daemons: Daemons, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    daemons.start("deaf", ["bash", "-c", f"trap '' TERM; touch {ready}; while true; do sleep 0.1; done"])
    while not ready.exists():
        pass
    daemons.stop("deaf", timeout_s=0.3)
    assert not daemons.is_running("deaf")


def test_a_process_that_got_the_id_of_a_dead_daemon_is_never_stopped(daemons: Daemons) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        record = daemons.start("sleeper", ["sleep", "60"])
        daemons.stop("sleeper")
        # The stranger started in the same hundredth of a second, or the one before: say a wholly other time.
        taken = replace(record, pid=stranger.pid, start_ticks=record.start_ticks - 1000)
        (daemons.records / "sleeper.json").write_text(json.dumps(asdict(taken)))
        assert not daemons.is_running("sleeper")
        daemons.stop("sleeper")
        assert stranger.poll() is None
        stranger.kill()


def test_a_running_daemon_is_not_started_twice(daemons: Daemons) -> None:
    daemons.start("sleeper", ["sleep", "60"])
    with pytest.raises(ClusterError, match="running already"):
        daemons.start("sleeper", ["sleep", "60"])
