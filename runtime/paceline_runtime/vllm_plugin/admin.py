"""The admin plane of a pod: a unix socket, in the server's own event loop.

    GET  /state     {"phase", "inFlight", "lastArrivalAgeSeconds"}
    POST /drain     begin to leave; again changes nothing (preStop)
    POST /pause     leave for a while: {"order": "tp=4,dp=2,change=7,drain=40"} (the launcher)
    POST /open      the launcher's word that the engine is warm, with the stages of the start and its canary
    PUT  /targets   judge requests by this targets.json from now on
    GET, PUT /emulation    how the emulated GPU differs from its table (the emulated engine alone)

Never on a TCP port: the router passes any path on to its workers, so whatever listens there is open to
every client of the service. The socket's file belongs to this container and to its user alone.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from paceline_core.canary import Canary
from paceline_core.latency import Targets, TargetsError
from paceline_core.layout import LayoutOrder
from paceline_runtime.vllm_plugin.drain import Drain
from paceline_runtime.vllm_plugin.guest_server import GuestServer
from paceline_runtime.vllm_plugin.serving import Serving

log = structlog.get_logger(__name__)

Message = MutableMapping[str, Any]
Answer = tuple[int, dict[str, Any]]
Route = Callable[[bytes], Answer]
"""From the body of a request to the answer."""


class Admin:
    """The ASGI application behind the socket."""

    def __init__(
        self, serving: Serving, *, drain: Drain, more: Mapping[tuple[str, str], Route] | None = None
    ) -> None:
        """`more`: routes of this server alone, by method and path."""
        self._serving = serving
        self._drain = drain
        self._more = more or {}

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        status, answer = self._answer(scope["method"], scope["path"], body)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _answer(self, method: str, path: str, body: bytes) -> Answer:
        match method, path:
            case "GET", "/state":
                return 200, self._state()
            case "POST", "/drain":
                self._drain.begin()
                return 202, self._state()
            case "POST", "/pause":
                return self._pause(body)
            case "POST", "/open":
                return self._open(body)
            case "PUT", "/targets":
                return self._retarget(body)
        more = self._more.get((method, path))
        return (404, {"error": f"no {method} {path} here"}) if more is None else more(body)

    def _state(self) -> dict[str, Any]:
        lifecycle = self._serving.lifecycle
        age_s = lifecycle.last_arrival_age_s()
        return {
            "phase": lifecycle.phase.value,
            "inFlight": lifecycle.in_flight,
            "lastArrivalAgeSeconds": None if age_s is None else round(age_s, 3),
        }

    def _open(self, body: bytes) -> Answer:
        try:
            told = json.loads(body)
            stages = {str(stage): float(seconds) for stage, seconds in told["stages"].items()}
            canary = None if told.get("canary") is None else Canary.from_json(told["canary"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return 400, {"error": 'write {"stages": {"weights": 1.5, ...}, "canary": null}'}
        self._serving.open(stages, canary=canary)
        return 200, self._state()

    def _pause(self, body: bytes) -> Answer:
        try:
            order = LayoutOrder.parse(json.loads(body)["order"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return 400, {"error": 'write {"order": "tp=4,dp=2,change=7"}'}
        self._drain.pause(order)
        return 202, self._state()

    def _retarget(self, body: bytes) -> Answer:
        try:
            targets = Targets.from_json(body)
        except TargetsError as error:
            return 400, {"error": str(error)}
        self._serving.ledger.retarget(targets)
        log.info("targets_changed", targets=targets.to_json())
        return 200, {}


def bind(path: Path) -> socket.socket:
    """The socket's file, for this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A server that was killed leaves its file behind in the pod's volume.
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    path.chmod(0o600)
    return bound


async def listen(admin: Admin, *, on: socket.socket) -> None:
    """Serve until cancelled."""
    config = uvicorn.Config(admin, lifespan="off", log_config=None, access_log=False, ws="none")
    await GuestServer(config).serve(sockets=[on])
