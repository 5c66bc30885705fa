"""A real Prometheus on loopback, built by `make cluster-binaries`, that scrapes what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from e2e.cluster import binaries
from e2e.cluster.layout import Layout
from tests.integration.gate.processes import Child, free_port

SOON_S = 120.0
"""What takes seconds on an idle machine may take this long on a busy one; only a test that fails waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    address: str
    labels: Mapping[str, str]


def program() -> Path:
    """Fails with the command that builds it; it is never skipped."""
    programs = binaries.own_program("prometheus")
    path = programs.folder(Layout.from_environment()) / "prometheus"
    assert path.is_file(), f"{path} is not there: run `make cluster-binaries`"
    return path


@dataclass(slots=True)
class PrometheusServer:
    """Started with `start`. Targets can be changed at any time."""

    folder: Path
    relabel_configs: Sequence[Mapping[str, Any]] = ()
    jobs: Sequence[str] = ("pods",)
    """Each scrapes every target."""

    scrape_s: int = 1
    """Between two scrapes; also the longest that one may take."""

    port: int = field(default_factory=free_port)
    process: Child = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        found = [{"files": [str(self.folder / "targets.json")], "refresh_interval": "1s"}]
        config = {
            "global": {"scrape_interval": f"{self.scrape_s}s", "scrape_timeout": f"{self.scrape_s}s"},
            "scrape_configs": [
                {
                    "job_name": job,
                    "file_sd_configs": found,
                    "relabel_configs": [dict(one) for one in self.relabel_configs],
                }
                for job in self.jobs
            ],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.scrape([])
        self.process = Child(
            [
                str(program()),
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                # Unless told otherwise a new target waits for five seconds.
                "--scrape.discovery-reload-interval=1s",
                "--log.level=warn",
            ],
            self.folder / "prometheus.log",
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process.start()

    def scrape(self, targets: Sequence[Target]) -> None:
        groups = [{"targets": [one.address], "labels": dict(one.labels)} for one in targets]
        path = self.folder / "targets.json"
        path.with_suffix(".new").write_text(json.dumps(groups))
        path.with_suffix(".new").rename(path)

    async def until_known(self, targets: int, *, timeout_s: float = SOON_S) -> int:
        """Wait until discovery has seen so many targets (it takes 5 s), and return how many are scraped."""
        since_s = time.monotonic()
        async with aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"{self.url}/api/v1/targets") as answer:
                        found = (await answer.json())["data"]
                    active, dropped = len(found["activeTargets"]), sum(found["droppedTargetCounts"].values())
                    if active + dropped == targets:
                        return active
                assert time.monotonic() - since_s < timeout_s, self.process.output()
                await asyncio.sleep(0.2)

    async def end(self) -> None:
        """As by hand: what is in memory is kept."""
        if self.process.running:
            self.process.signal(signal.SIGTERM)
            await self.process.exit_code()
