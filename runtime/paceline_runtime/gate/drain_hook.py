"""The preStop hook of the gate: begin its drain, then wait while it still accepts.

Called by `paceline-runtime gate-drain`. The standard library alone: the hook starts in a busy pod that is
leaving, and the import of an HTTP library would take longer than its work.
"""

from __future__ import annotations

import http.client
import socket as sockets
import time
from pathlib import Path
from typing import Final

ANSWER_WITHIN_S: Final = 5.0


class NoGate(Exception):
    """No gate answers on the socket. The message names it."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, socket: Path) -> None:
        super().__init__("gate", timeout=ANSWER_WITHIN_S)
        self._socket = socket

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket))


def drain(socket: Path, *, accept_s: float) -> None:
    """Return when the gate may be sent SIGTERM. Raises NoGate."""
    connection = _UnixConnection(socket)
    try:
        connection.request("POST", "/drain")
        answer = connection.getresponse()
        if answer.status != 200:
            raise NoGate(f"the gate on {socket} answered {answer.status}")
    except (OSError, http.client.HTTPException) as error:
        raise NoGate(f"no gate answers on {socket}: {error}") from error
    finally:
        connection.close()
    time.sleep(accept_s)
