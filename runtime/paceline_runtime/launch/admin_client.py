"""Talk to the admin socket of this pod's server. Standard library only: the preStop hook must start at
once."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paceline_core import Canary, LayoutOrder


class NoServer(Exception):
    """Nobody listens on the socket: no server is up yet, or it has ended."""


class NoAnswer(Exception):
    """A server is there and did not answer: it is busy, or on its way out. Ask again."""


class AdminClient:
    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def state(self) -> dict[str, Any]:
        return self._ask("GET", "/state")

    def drain(self) -> dict[str, Any]:
        return self._ask("POST", "/drain")

    def pause(self, order: LayoutOrder) -> dict[str, Any]:
        return self._ask("POST", "/pause", {"order": str(order)})

    def open(self, stages: dict[str, float], *, canary: Canary | None) -> dict[str, Any]:
        told = None if canary is None else canary.to_json()
        return self._ask("POST", "/open", {"stages": stages, "canary": told})

    def emulation(self, changes: dict[str, Any] | None = None) -> dict[str, Any]:
        """How the emulated GPU behaves, after these changes if there are any."""
        return self._ask("PUT" if changes else "GET", "/emulation", changes)

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = _UnixConnection(self._path, timeout_s=self._timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            content = answer.read()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoServer(f"{self._path}: {error.strerror}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self._path}: {error}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise NoAnswer(f"{self._path}: {method} {path} was answered {answer.status}: {content.decode()}")
        return dict(json.loads(content))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, *, timeout_s: float) -> None:
        super().__init__("paceline", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
