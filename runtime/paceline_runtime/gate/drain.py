"""How a gate leaves without losing a request.

The preStop hook (`paceline-runtime gate-drain`) posts to a unix socket that only this pod's containers can
reach. From then on readiness says no and every answer asks its client to close the connection, while requests
are still accepted: the endpoints of the Service and the rules of every node lag behind. It must not end
anything: the kubelet's SIGTERM does that, after the hook has waited.
"""

from __future__ import annotations

from pathlib import Path

import structlog
from aiohttp import web

log = structlog.get_logger(__name__)


class Drain:
    """Whether this gate is leaving. Once begun it does not end."""

    def __init__(self) -> None:
        self._draining = False

    @property
    def draining(self) -> bool:
        return self._draining

    def begin(self, *, why: str) -> None:
        if not self._draining:
            self._draining = True
            log.info("draining", why=why)


async def listen(drain: Drain, *, socket: Path) -> web.AppRunner:
    """Serve `POST /drain` on `socket`. The caller cleans the runner up."""

    async def begin(_: web.Request) -> web.Response:
        drain.begin(why="preStop")
        return web.json_response({"draining": True})

    app = web.Application()
    app.router.add_post("/drain", begin)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    _make_way(socket)
    await web.UnixSite(runner, str(socket)).start()
    return runner


def _make_way(socket: Path) -> None:
    socket.parent.mkdir(parents=True, exist_ok=True)
    # A gate that was killed leaves its socket file behind in the pod's volume.
    socket.unlink(missing_ok=True)
