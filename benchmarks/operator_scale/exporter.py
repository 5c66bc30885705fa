"""The one synthetic exporter: the metrics pages of all pods of all services, in a process of its own.

    GET  /metrics/{part}    the pages of every PARTS-th service
    POST /pods              {"namespace/service": {"engine": [names], "router": [names]}}: those that are Ready now
    POST /load              {"service": "namespace/service", "requests_per_s": 30} -> {"at_s": Unix time}
    GET  /shown             ?service=namespace/service -> {"at_s": when a scrape first had its last load, or null}

A load that rises shows at once in a rate over the operator's window: the counters jump by what the window would have
held of it. Else the time that is measured would be that of the window to fill, which is no delay of anybody's.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field

from aiohttp import web

from benchmarks.pod_pages import OUTPUT_TOKENS, Speed, engine_page, gate_page, labels

PARTS = 20
"""Scraped side by side, as pods are."""

SPEED = Speed(ttft_s=0.06, tpot_s=0.0075, good_share=0.999)
MAX_SEQUENCES = 16
"""In an engine's batch; the rest of what is in flight waits."""


@dataclass(slots=True)
class ServicePages:
    """The load on one service, split evenly over its Ready pods."""

    namespace: str
    name: str
    requests_per_s: float
    window_s: float
    engines: list[str] = field(default_factory=list)
    gates: list[str] = field(default_factory=list)
    counts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Requests by pod."""

    at_s: float = field(default_factory=time.time)
    """Up to when they are counted."""

    slope_per_s: float = 0.0
    """What the counters grow by; it follows the load a window after a jump."""

    slope_until_s: float = 0.0
    shown_at_s: float | None = None

    def __post_init__(self) -> None:
        self.slope_per_s = self.requests_per_s

    def change(self, requests_per_s: float, *, now_s: float) -> None:
        self.advance(now_s)
        more = requests_per_s - self.requests_per_s
        if more > 0:
            self._spread(more * self.window_s)
            self.slope_until_s = now_s + self.window_s
        else:
            self.slope_per_s, self.slope_until_s = requests_per_s, now_s
        self.requests_per_s, self.shown_at_s = requests_per_s, None

    def advance(self, now_s: float) -> None:
        now_s = max(now_s, self.at_s)
        turn_s = min(max(self.slope_until_s, self.at_s), now_s)
        self._count(self.slope_per_s * (turn_s - self.at_s))
        if now_s >= self.slope_until_s:
            self.slope_per_s = self.requests_per_s
        self._count(self.slope_per_s * (now_s - turn_s))
        self.at_s = now_s

    def write(self, lines: list[str]) -> None:
        in_flight = self.requests_per_s * (SPEED.ttft_s + OUTPUT_TOKENS * SPEED.tpot_s)
        each = in_flight / max(len(self.engines), 1)
        running = min(each, MAX_SEQUENCES)
        for pod in self.engines:
            at = labels(namespace=self.namespace, service=self.name, pod=pod, tensor_parallel_size=1)
            count = self.counts[pod]
            engine_page(lines, at, count=count, running=running, waiting=each - running, speed=SPEED)
        for pod in self.gates:
            at = labels(namespace=self.namespace, service=self.name, pod=pod)
            share = in_flight / len(self.gates)
            gate_page(lines, at, count=self.counts[pod], in_flight=share, speed=SPEED)

    def _count(self, expected: float) -> None:
        """As many as come by chance."""
        self._spread(max(random.gauss(expected, math.sqrt(expected)), 0.0))

    def _spread(self, requests: float) -> None:
        for pods in (self.engines, self.gates):
            for pod in pods:
                self.counts[pod] += requests / len(pods)


class Exporter:
    def __init__(self, *, requests_per_s: float, window_s: float) -> None:
        self._requests_per_s = requests_per_s
        self._window_s = window_s
        self._services: dict[str, ServicePages] = {}

    def app(self) -> web.Application:
        made = web.Application(client_max_size=2**26)
        made.router.add_get("/metrics/{part}", self._metrics)
        made.router.add_post("/pods", self._pods)
        made.router.add_post("/load", self._load)
        made.router.add_get("/shown", self._shown)
        return made

    async def _metrics(self, request: web.Request) -> web.Response:
        now_s, lines = time.time(), list[str]()
        for pages in list(self._services.values())[int(request.match_info["part"]) :: PARTS]:
            pages.advance(now_s)
            pages.write(lines)
            pages.shown_at_s = pages.shown_at_s or now_s
        lines.append("")
        return web.Response(text="\n".join(lines), content_type="text/plain")

    async def _pods(self, request: web.Request) -> web.Response:
        now_s = time.time()
        for service, pods in (await request.json()).items():
            pages = self._of(service)
            pages.advance(now_s)
            pages.engines, pages.gates = pods["engine"], pods["router"]
        return web.json_response({})

    async def _load(self, request: web.Request) -> web.Response:
        asked, now_s = await request.json(), time.time()
        self._of(asked["service"]).change(asked["requests_per_s"], now_s=now_s)
        return web.json_response({"at_s": now_s})

    async def _shown(self, request: web.Request) -> web.Response:
        return web.json_response({"at_s": self._of(request.query["service"]).shown_at_s})

    def _of(self, service: str) -> ServicePages:
        if service not in self._services:
            namespace, _, name = service.partition("/")
            self._services[service] = ServicePages(namespace, name, self._requests_per_s, self._window_s)
        return self._services[service]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests-per-s", type=float, required=True, help="of each service, at first")
    parser.add_argument("--window-s", type=float, required=True, help="the operator's")
    asked = parser.parse_args()
    exporter = Exporter(requests_per_s=asked.requests_per_s, window_s=asked.window_s)
    web.run_app(exporter.app(), host="127.0.0.1", port=asked.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
