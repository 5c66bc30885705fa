"""One service as it is in a cluster, without the cluster: two gates with their routers, emulated engines of two
sizes, a real Prometheus that scrapes them, and a proxy at every place where something can break."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import aiohttp

from e2e.load import Load, OpenLoop
from paceline.metrics import (
    MetricsSettings,
    MetricsSource,
    PrometheusSettings,
    Rules,
    ServiceFacts,
    ServiceMetrics,
)
from paceline_core import Layout
from tests.integration.gate.engines import Engine, engine
from tests.integration.gate.processes import Stack, stack
from tests.integration.metrics.faults import Proxies, Proxy
from tests.integration.metrics.prometheus_server import SOON_S, PrometheusServer, Target

NAMESPACE, SERVICE = "team-a", "chat"
SLOWEST_PACE_S = 5
T = TypeVar("T")

ENGINE_PORT, OPS_PORT = 8000, 9090


class Key(NamedTuple):
    namespace: str = NAMESPACE
    name: str = SERVICE


KEY = Key()


@dataclass(frozen=True, slots=True, kw_only=True)
class APod:
    """As much of a pod as the metrics see."""

    name: str
    component: str
    tensor_parallel_size: int | None
    ip: str
    created_at_s: float = field(default_factory=lambda: time.time() - 600)
    ready: bool = True
    ready_since_s: float | None = field(default_factory=lambda: time.time() - 500)
    deleting: bool = False
    finished: bool = False

    @property
    def serves_in(self) -> Layout | None:
        return Layout(self.tensor_parallel_size) if self.tensor_parallel_size is not None else None

    @property
    def changed_at_s(self) -> float | None:
        return None

    @property
    def labels(self) -> dict[str, str]:
        size = self.tensor_parallel_size
        found = {"namespace": NAMESPACE, "pod": self.name, "paceline_dev_service": SERVICE}
        return found if size is None else found | {"paceline_dev_tensor_parallel_size": str(size)}


@dataclass(slots=True)
class World:
    prometheus: PrometheusServer
    api: Proxy
    """Between the operator and Prometheus."""

    pages: dict[str, Proxy]
    """Between Prometheus and each pod."""

    pods: list[APod]
    gates: list[Stack]
    engines: dict[str, Engine]
    scrape_s: int
    """Between two scrapes: what this machine keeps up with."""

    @property
    def rules(self) -> Rules:
        """As short as the scrapes allow."""
        pace_s = float(self.scrape_s)
        return Rules(
            window_s=6 * pace_s,
            stale_after_s=5 * pace_s,
            scrape_grace_s=3 * pace_s,
            contradiction_requests=15.0,
        )

    def heal(self) -> None:
        for proxy in (self.api, *self.pages.values()):
            proxy.heal()
        self.scrape(self.pods)

    def scrape(self, pods: list[APod]) -> None:
        self.prometheus.scrape(self.targets(pods))

    def targets(self, pods: list[APod]) -> list[Target]:
        return [Target(address=self.pages[pod.name].address, labels=pod.labels) for pod in pods]

    def pod(self, name: str) -> APod:
        return next(pod for pod in self.pods if pod.name == name)

    @asynccontextmanager
    async def load(self, *, rate_per_s: float) -> AsyncIterator[list[OpenLoop]]:
        """Through both gates, with short answers."""
        async with AsyncExitStack() as running:
            loops = [
                OpenLoop(
                    gate.url,
                    model="m",
                    load=Load(
                        rate_per_s=rate_per_s / len(self.gates),
                        process="constant",
                        seed=seed,
                        max_tokens=(8, 8),
                        ignore_eos=True,
                    ),
                )
                for seed, gate in enumerate(self.gates)
            ]
            for loop in loops:
                await running.enter_async_context(loop.running())
            yield loops

    def settings(self, **changes: object) -> MetricsSettings:
        prometheus = PrometheusSettings(url=self.api.url, timeout_s=20.0, backoff_s=0.05)
        base = MetricsSettings(
            prometheus=prometheus, rules=self.rules, tick_timeout_s=30.0, direct_after_s=3600.0
        )
        return replace(base, **changes)  # type: ignore[arg-type]

    async def collect(self, source: MetricsSource, pods: list[APod] | None = None) -> ServiceMetrics:
        facts = ServiceFacts(pods=self.pods if pods is None else pods)
        return (await source.collect({KEY: facts}))[KEY]

    @asynccontextmanager
    async def source(self, **changes: object) -> AsyncIterator[MetricsSource]:
        source = MetricsSource(self.settings(**changes))
        try:
            yield source
        finally:
            await source.close()

    async def look(self, pods: list[APod] | None = None, **changes: object) -> ServiceMetrics:
        """One tick of a source of its own."""
        async with self.source(**changes) as source:
            return await self.collect(source, pods)

    async def eventually(
        self,
        check: Callable[[ServiceMetrics], None],
        *,
        source: MetricsSource | None = None,
        pods: list[APod] | None = None,
        **changes: object,
    ) -> ServiceMetrics:
        """Look until the check finds nothing wrong."""
        async with AsyncExitStack() as at_end:
            if source is None:
                source = await at_end.enter_async_context(self.source(**changes))
            look = partial(self.collect, source, pods)
            return await eventually(look, check)

    async def until_measured(self) -> ServiceMetrics:
        """Every figure that needs no load is Fresh."""
        return await self.eventually(available)


def available(metrics: ServiceMetrics) -> None:
    assert metrics.availability.available is True, metrics.availability


async def eventually(look: Callable[[], Awaitable[T]], check: Callable[[T], None]) -> T:
    """The first look at which the check finds nothing wrong; fails with what it found last."""
    since_s = time.monotonic()
    while True:
        seen = await look()
        try:
            check(seen)
        except (AssertionError, KeyError):
            if time.monotonic() - since_s > SOON_S:
                raise
        else:
            return seen
        await asyncio.sleep(0.2)


async def pace_of(pages: Collection[Proxy]) -> int:
    """Whole seconds between two scrapes: four times what the slowest page takes when all are asked at once."""
    slowest_s = 0.0
    async with aiohttp.ClientSession() as http:

        async def scrape(page: Proxy) -> None:
            async with http.get(f"{page.url}/metrics") as answer:
                await answer.read()

        for _ in range(5):
            since_s = time.monotonic()
            await asyncio.gather(*(scrape(page) for page in pages))
            slowest_s = max(slowest_s, time.monotonic() - since_s)
            await asyncio.sleep(0.2)
    return min(max(math.ceil(4 * slowest_s), 1), SLOWEST_PACE_S)


@asynccontextmanager
async def world(
    folder: Path, *, engines: dict[str, int], jobs: tuple[str, ...] = ("pods",)
) -> AsyncIterator[World]:
    """`engines`: tensor-parallel size by the name of the pod."""
    network = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}"
    proxies = Proxies()
    running: dict[str, Engine] = {}
    pods: list[APod] = []
    async with AsyncExitStack() as at_end:
        at_end.push_async_callback(proxies.close)
        for number, (name, size) in enumerate(engines.items(), start=10):
            ip = f"{network}.{number}"
            running[name] = engine(folder / name, ip=ip, port=ENGINE_PORT, step_ms=10)
            running[name].process.start()
            at_end.push_async_callback(running[name].process.stop)
            pods.append(APod(name=name, component="engine", tensor_parallel_size=size, ip=ip))
        gates = []
        for number in (1, 2):
            ip, name = f"{network}.{number}", f"gate-{number}"
            (folder / name).mkdir(parents=True)
            gates.append(
                await at_end.enter_async_context(
                    stack(
                        folder / name,
                        workers=[one.address for one in running.values()],
                        gate_address=(ip, OPS_PORT),
                    )
                )
            )
            pods.append(APod(name=name, component="router", tensor_parallel_size=None, ip=ip))
        pages = {}
        for pod in pods:
            port = ENGINE_PORT if pod.component == "engine" else OPS_PORT
            pages[pod.name] = await proxies.before(f"http://{pod.ip}:{port}")
        for gate in gates:
            await gate.wait_ready()
            await gate.wait_listed({one.address for one in running.values()}, timeout_s=SOON_S)
        pace_s = await pace_of(pages.values())
        server = PrometheusServer(folder / "prometheus", jobs=jobs, scrape_s=pace_s)
        server.start()
        at_end.push_async_callback(server.process.stop)
        made = World(
            prometheus=server,
            api=await proxies.before(server.url),
            pages=pages,
            pods=pods,
            gates=gates,
            engines=running,
            scrape_s=pace_s,
        )
        made.scrape(pods)
        await made.until_measured()
        yield made
