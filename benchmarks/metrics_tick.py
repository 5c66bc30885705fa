"""What one tick of the metrics costs at a thousand services: the operator's side and Prometheus' side.

    python -m benchmarks.metrics_tick [--services 1000] [--engines 4] [--gates 2] [--ticks 5] [--scrape-seconds 15]

A real Prometheus scrapes one synthetic exporter that writes every series of every pod with growing counters (the
pods' labels stand in the page: honor_labels). Then the operator's own MetricsSource asks as it does in the cluster.
CPU time is user plus system of each process; that of Prometheus is what it used during the ticks less what it uses
for scraping alone in as much time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import yaml
from aiohttp import web

from benchmarks.pod_pages import Speed, engine_page, gate_page, labels
from benchmarks.usage import Usage
from paceline.metrics import MetricsSettings, MetricsSource, PrometheusSettings, ServiceFacts
from paceline.metrics import prometheus as client
from paceline_core import Layout
from tests.integration.gate.processes import Child, free_port
from tests.integration.metrics.prometheus_server import program

SPEED = Speed(ttft_s=0.2, tpot_s=0.02, good_share=0.97)
PAGES = 20
"""The exporter is scraped in parts, side by side, as pods are."""


class Key(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class APod:
    name: str
    component: str
    tensor_parallel_size: int | None
    ip: str | None = None
    created_at_s: float = 0.0
    ready: bool = True
    ready_since_s: float | None = 0.0
    deleting: bool = False
    finished: bool = False

    @property
    def serves_in(self) -> Layout | None:
        return Layout(self.tensor_parallel_size) if self.tensor_parallel_size is not None else None

    @property
    def changed_at_s(self) -> float | None:
        return None


@dataclass(slots=True)
class Exporter:
    """Series of `services` services; every counter grows with time."""

    services: list[Key]
    engines: int
    gates: int
    began_s: float = field(default_factory=time.monotonic)

    @property
    def series(self) -> int:
        return self._service(0.0).count("\n") * len(self.services)

    def serve(self, port: int) -> None:
        app = web.Application()
        app.router.add_get("/metrics/{part}", self._page)
        web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)

    async def _page(self, request: web.Request) -> web.Response:
        part = int(request.match_info["part"])
        text = await asyncio.to_thread(self._text, part)
        return web.Response(text=text, content_type="text/plain")

    def _text(self, part: int) -> str:
        # One service is written once, the others are copies of it under their names.
        one = self._service(time.monotonic() - self.began_s)
        keys = self.services[part::PAGES]
        return "".join(one.replace("@NS", key.namespace).replace("@S", key.name) for key in keys)

    def _service(self, since_s: float) -> str:
        lines: list[str] = []
        for number in range(self.engines):
            size = 1 if number % 2 else 4
            at = labels(namespace="@NS", service="@S", pod=f"@S-engine-{number}", tensor_parallel_size=size)
            engine_page(lines, at, count=2.0 * since_s, running=11.0, waiting=1.0, speed=SPEED)
        for number in range(self.gates):
            at = labels(namespace="@NS", service="@S", pod=f"@S-gate-{number}")
            count = 2.0 * since_s * self.engines / self.gates
            gate_page(lines, at, count=count, in_flight=24.0, speed=SPEED)
        return "\n".join(lines) + "\n"


def run(options: argparse.Namespace) -> None:
    keys = [Key(f"team-{number % 50}", f"service-{number}") for number in range(options.services)]
    exporter = Exporter(keys, options.engines, options.gates)
    if options.export:
        exporter.serve(options.export)
        return
    asyncio.run(_measured(options, keys, exporter))


async def _measured(options: argparse.Namespace, keys: list[Key], exporter: Exporter) -> None:
    exporter_port, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = {
            "global": {
                "scrape_interval": f"{options.scrape_seconds}s",
                "scrape_timeout": f"{options.scrape_seconds}s",
            },
            "scrape_configs": [
                {
                    "job_name": f"part-{part}",
                    "honor_labels": True,
                    "metrics_path": f"/metrics/{part}",
                    "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}],
                }
                for part in range(PAGES)
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        # A process of its own: what it uses is neither the operator's nor Prometheus'.
        exporting = Child(
            [
                *(sys.executable, "-m", "benchmarks.metrics_tick", "--export", str(exporter_port)),
                *("--services", str(options.services)),
                *("--engines", str(options.engines), "--gates", str(options.gates)),
            ],
            folder / "exporter.log",
        )
        exporting.start()
        prometheus = Child(
            [
                str(program()),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ],
            folder / "prometheus.log",
        )
        prometheus.start()
        try:
            await measure(options, keys, exporter, prometheus, f"http://127.0.0.1:{port}")
        finally:
            await prometheus.stop()
            await exporting.stop()


async def measure(
    options: argparse.Namespace, keys: list[Key], exporter: Exporter, prometheus: Child, url: str
) -> None:
    pid = prometheus.pid
    sizes: list[int] = []
    read = client._read

    def counting(body: bytes, **rest: object) -> client.Answer:
        sizes.append(len(body))
        return read(body, **rest)  # type: ignore[arg-type]

    client._read = counting
    settings = MetricsSettings(
        prometheus=PrometheusSettings(url=url, timeout_s=60.0), tick_timeout_s=120.0, direct_after_s=1e9
    )
    facts = {
        key: ServiceFacts(
            pods=[
                *(
                    APod(
                        name=f"{key.name}-engine-{number}",
                        component="engine",
                        tensor_parallel_size=1 if number % 2 else 4,
                    )
                    for number in range(options.engines)
                ),
                *(
                    APod(name=f"{key.name}-gate-{number}", component="router", tensor_parallel_size=None)
                    for number in range(options.gates)
                ),
            ]
        )
        for key in keys
    }
    source = MetricsSource(settings)
    await asyncio.sleep(60 + 2 * options.scrape_seconds)
    rest_began_s, rest_cpu_s = time.monotonic(), Usage.of(pid).cpu_s
    await asyncio.sleep(4 * options.scrape_seconds)
    scraping_share = (Usage.of(pid).cpu_s - rest_cpu_s) / (time.monotonic() - rest_began_s)
    walls, own, theirs = [], [], []
    for _ in range(options.ticks):
        sizes.clear()
        began_s, own_s, their_s = time.monotonic(), time.process_time(), Usage.of(pid).cpu_s
        metrics = await source.collect(facts)
        walls.append(time.monotonic() - began_s)
        own.append(time.process_time() - own_s)
        theirs.append(Usage.of(pid).cpu_s - their_s - scraping_share * walls[-1])
        await asyncio.sleep(options.scrape_seconds)
    await source.close()
    available = sum(one.availability.available is True for one in metrics.values())
    rate = metrics[keys[0]].traffic.requests_per_s.value
    print(f"{len(keys)} services, {options.engines} engine and {options.gates} router pods each")
    print(f"{exporter.series} series, scraped every {options.scrape_seconds} s")
    print(f"measured: {available} services; requests/s of one: {rate} (written: {2.0 * options.engines})")
    print(f"queries a tick                   {len(sizes)}")
    print(f"answers a tick                   {sum(sizes) / 2**20:.1f} MiB")
    print(f"a tick takes                     {_spread(walls)} s")
    print(f"CPU of the operator a tick       {_spread(own)} s")
    print(
        f"CPU of Prometheus a tick         {_spread(theirs)} s, and {scraping_share:.2f} cores for scraping"
    )
    print(f"memory of Prometheus             {Usage.of(pid).resident_mib:.0f} MiB")
    print(
        f"peak memory of this process      {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )
    print(f"load average                     {os.getloadavg()[0]:.1f}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--gates", type=int, default=2)
    parser.add_argument("--ticks", type=int, default=5)
    parser.add_argument("--scrape-seconds", type=int, default=15)
    parser.add_argument("--export", type=int, metavar="PORT", help=argparse.SUPPRESS)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
