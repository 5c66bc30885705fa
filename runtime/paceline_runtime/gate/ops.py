"""The ops port: what Prometheus, the kubelet and draining engines read.

Nothing here changes anything, so it may be reached from the whole pod network.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from paceline_runtime.gate.drain import Drain
from paceline_runtime.gate.metrics import Metrics
from paceline_runtime.gate.workers import Reconcile, RouterList, RouterSilent

ROUTER_GONE_S: Final = 10.0
"""A gate whose router has not run for this long is not ready: another pod's may be well. Shorter would take a
gate out for a restart of its router, which the hold covers."""

ROUTER_HUNG_S: Final = 60.0
"""A router that takes connections and answers none of them for this long hangs. Sooner, it may only be slow:
on a machine with more work than cores it was silent for over ten seconds and served all the same, and taking
the last gate out of its Service refused every request that the hold would have kept."""


def application(
    *, drain: Drain, metrics: Metrics, reconcile: Reconcile, router: RouterList
) -> web.Application:
    async def ready(_: web.Request) -> web.Response:
        if drain.draining:
            return web.Response(status=503, text="draining\n")
        if not reconcile.equalled_once:
            return web.Response(status=503, text="the router has not listed the Ready pods yet\n")
        if reconcile.gone_s() > ROUTER_GONE_S:
            return web.Response(status=503, text="the router does not run\n")
        if reconcile.silent_s() > ROUTER_HUNG_S:
            return web.Response(status=503, text="the router does not answer\n")
        return web.Response(text="ready\n")

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def workers(_: web.Request) -> web.Response:
        """A draining engine asks this before it stops accepting: so it is read now, never remembered."""
        try:
            return web.json_response({"workers": sorted(await router.read())})
        except RouterSilent:
            return web.json_response({"error": "the router does not answer"}, status=503)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/readyz", ready)
    app.router.add_get("/livez", live)
    app.router.add_get("/workers", workers)
    app.router.add_get("/metrics", scrape)
    return app
