"""The engine as a child of the launcher: started, listened to, told to stop, reaped.

The launcher stays its parent and is not replaced by it, so that one pod may later run its engine in another
layout without leaving its node. As the first process of the container the launcher also inherits every
orphan, and must reap those; and it gets the kubelet's SIGTERM, which has no default action there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

_ERROR_LINE = re.compile(r"\b\w*(?:Error|Exception)\b: \S")
_KEPT_LINES = 400
_PR_SET_PDEATHSIG = 1


class EngineProcess:
    """`on_line` gets each line of the engine's output after it was passed on."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> None:
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._child = subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._reader = threading.Thread(target=self._pass_on, name="engine-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def terminate(self) -> None:
        """Ask the server to finish what runs and end. It tells its own children."""
        # Not Popen.terminate: it would reap the child, and `wait` would never see it end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End all of it now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Reap children until the engine itself ends; its exit code, 128 + n for signal n."""
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._child.pid:
                code = os.waitstatus_to_exitcode(status)
                self._child.returncode = code
                break
        # What the server leaves behind would keep the devices and the port.
        self.kill()
        self._reader.join(timeout=2)
        return 128 - code if code < 0 else code

    def last_error(self) -> str:
        """The last line that names an exception; else the last line at all."""
        lines = [line for line in self._tail if line.strip()]
        errors = [line for line in lines if _ERROR_LINE.search(line)]
        return (errors or lines or ["it said nothing"])[-1].strip()

    def _pass_on(self) -> None:
        assert self._child.stdout is not None
        for raw in self._child.stdout:
            sys.stdout.buffer.write(raw)
            sys.stdout.buffer.flush()
            line = raw.decode(errors="replace").rstrip("\n")
            self._tail.append(line)
            self._on_line(line)


def _end_with_parent() -> None:
    """In the child: SIGTERM if the launcher dies. A container's first process takes everything with it
    anyway; a launcher on a laptop does not."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
