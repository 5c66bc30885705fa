"""Programs that outlive the command that starts them, each known by a record on disk.

Called by the local cluster. A record names the process by id *and* start time, so that a process which
got a dead one's id is never taken for it, and never stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.cluster.errors import ClusterError

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: when the process began, in ticks after boot."""
    program: str


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The program's name, in brackets, may hold spaces: count after the last bracket.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Daemons:
    """The records of one cluster."""

    records: Path
    logs: Path

    def start(
        self, name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None
    ) -> Record:
        """Start ``command`` in a session of its own, its words in ``logs/NAME.log``.

        It must not replace itself by another program: the record knows it by its own words.
        """
        if self.is_running(name):
            raise ClusterError(f"{name} is running already; run `python -m e2e.cluster down` first")
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in command]
        with (self.logs / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env=env,
            )
        ticks = _start_ticks(process.pid)
        if ticks is None:
            raise ClusterError(f"{name} ended at once; see {self.logs / (name + '.log')}")
        record = Record(name=name, pid=process.pid, start_ticks=ticks, program=words[0])
        (self.records / f"{name}.json").write_text(json.dumps(asdict(record)))
        return record

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.records.glob("*.json"))

    def record(self, name: str) -> Record | None:
        path = self.records / f"{name}.json"
        return Record(**json.loads(path.read_text())) if path.exists() else None

    def pid(self, name: str) -> int | None:
        """The id of the running process that the record means, or None."""
        record = self.record(name)
        if record is None or _start_ticks(record.pid) != record.start_ticks:
            return None
        return record.pid if record.program in _command_line(record.pid) else None

    def is_running(self, name: str) -> bool:
        return self.pid(name) is not None

    def stop(self, name: str, *, kill: bool = False, timeout_s: float = 10) -> None:
        """End the process (SIGTERM, and SIGKILL after ``timeout_s``; at once with ``kill``) and forget it."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
            if not self._gone(name, timeout_s):
                os.kill(pid, signal.SIGKILL)
                if not self._gone(name, timeout_s):
                    raise ClusterError(f"{name} (process {pid}) does not end, not even when killed")
        (self.records / f"{name}.json").unlink(missing_ok=True)

    def _gone(self, name: str, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.pid(name) is None:
                return True
            time.sleep(POLL_S)
        return False
