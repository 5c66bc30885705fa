"""What the operator costs, and how fast it is, with many services in Auto on many nodes.

    python -m benchmarks.operator_scale --services 1000 --minutes 60 [--nodes 1000] [--scrape-seconds 15]
        [--changes-per-minute 12] [--seed 0] [--keep FOLDER] [--record]

Real: etcd, API server, the controller manager's Deployments and ReplicaSets, Prometheus, and the operator's process.
Played: nodes (written down, no kubelet), the pods on them (bound and Ready at once), and their metrics (one exporter).
Each service has three engines and a router pod. At random moments the exporter gives one of them more load than it
carries; measured is the time from there to the watch event of its Deployment with more replicas. Everything is on
loopback and shares the machine with what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.operator_scale import cluster
from benchmarks.operator_scale.api import Api, session
from benchmarks.operator_scale.changes import CALM_PER_S, Changes
from benchmarks.operator_scale.exporter import PARTS
from benchmarks.operator_scale.minutes import Clock, Minute, summary, table
from e2e import results
from paceline.api.crd import custom_resource_definition
from tests.integration.control_plane import ControlPlane, control_plane
from tests.integration.controller.operators import Operator
from tests.integration.controller.programs import beside, process
from tests.integration.gate.processes import free_port
from tests.integration.metrics.prometheus_server import program

ROOT = Path(__file__).resolve().parents[2]
PERIOD_S, WINDOW_S = 15, 60
"""The operator's defaults: between two ticks, and of rates."""

SERVICES = "/apis/paceline.dev/v1alpha1/inferenceservices"
LOOK_S = 10.0
SETTLE_S = 45 * 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    plane: ControlPlane
    exporter_url: str
    operator: Operator
    pids: dict[str, int]


@contextmanager
def stage(asked: argparse.Namespace, folder: Path) -> Iterator[Stage]:
    """Every process, until the end of the block."""
    exporter_port, prometheus_port, port = free_port(), free_port(), free_port()
    prometheus_url = f"http://127.0.0.1:{prometheus_port}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "operator", ROOT / "runtime", ROOT)))}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_prometheus(asked.scrape_seconds, exporter_port)))
    commands: dict[str, list[str]] = {
        "exporter": [
            *(sys.executable, "-m", "benchmarks.operator_scale.exporter", f"--port={exporter_port}"),
            *(f"--requests-per-s={CALM_PER_S}", f"--window-s={WINDOW_S}"),
        ],
        "prometheus": [
            str(program()),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
            "--log.level=warn",
        ],
    }
    with ExitStack() as running:
        plane = running.enter_context(control_plane(folder))
        # Nothing else that it does is wanted here, and its own limit of 20 requests a second would only let us wait.
        flags = [
            "--controllers=deployment-controller,replicaset-controller",
            *("--kube-api-qps=200", "--kube-api-burst=400"),
        ]
        controllers = beside(plane, "kube-controller-manager", folder=folder, flags=flags)
        pids = {**plane.pids, "kube-controller-manager": running.enter_context(controllers).pid}
        _apply_crd(plane)
        for name, command in commands.items():
            child = process([*command], log=folder / f"{name}.log", env=env)
            pids[name] = running.enter_context(child).pid
        log = folder / "operator.log"
        command = [
            sys.executable, "-c", "from paceline.cli import main; main()", "operator",
            f"--kubeconfig={plane.kubeconfig}", "--lease-namespace=default", "--hub-endpoint=",
            "--metrics-host=127.0.0.1", f"--metrics-port={port}", f"--prometheus-url={prometheus_url}",
            f"--decision-period-seconds={PERIOD_S}", f"--metrics-window-seconds={WINDOW_S}",
        ]  # fmt: skip
        operator = Operator(running.enter_context(process([*command], log=log, env=env)), port, log)
        yield Stage(
            plane=plane,
            exporter_url=f"http://127.0.0.1:{exporter_port}",
            operator=operator.await_leading(),
            pids={"operator": operator.process.pid, **pids},
        )


def _prometheus(scrape_s: int, exporter_port: int) -> dict[str, object]:
    return {
        "global": {"scrape_interval": f"{scrape_s}s", "scrape_timeout": f"{scrape_s}s"},
        "scrape_configs": [
            {
                "job_name": f"part-{part}",
                "honor_labels": True,
                "metrics_path": f"/metrics/{part}",
                "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}],
            }
            for part in range(PARTS)
        ],
    }


def _apply_crd(plane: ControlPlane) -> None:
    kubectl: list[Path | str] = [plane.binaries / "kubectl", "--kubeconfig", plane.kubeconfig]
    crd = yaml.safe_dump(custom_resource_definition()).encode()
    for arguments, text in (
        (["apply", "--server-side", "-f", "-"], crd),
        (["wait", "--for=condition=Established", "crd", "--all"], None),
    ):
        subprocess.run([*kubectl, *arguments], input=text, check=True, stdout=subprocess.DEVNULL)


async def measure(asked: argparse.Namespace, stage: Stage) -> list[Minute]:
    async with session(stage.plane) as to_plane, session() as to_exporter:
        api, exporter = Api(stage.plane.url, to_plane), Api(stage.exporter_url, to_exporter)
        pods = cluster.Pods(api, exporter, nodes=asked.nodes)
        changes = Changes(api, exporter, per_minute=asked.changes_per_minute, seed=asked.seed)
        await cluster.create_nodes(api, asked.nodes)
        async with _beside(pods.run(), changes.watch()):
            await cluster.create_services(api, asked.services)
            say(f"{asked.services} services on {asked.nodes} nodes are written down")
            await _settled(api, pods, services=asked.services)
            clock, found = Clock(stage.pids), list[Minute]()
            clock.start(await asyncio.to_thread(stage.operator.scrape))
            async with _beside(changes.run()):
                for _ in range(asked.minutes):
                    await asyncio.sleep(60)
                    found.append(clock.take(await asyncio.to_thread(stage.operator.scrape), changes.lags))
                    say(found[-1].line())
            return found


async def _settled(api: Api, pods: cluster.Pods, *, services: int) -> None:
    """Until every pod is Ready, and the operator has measured every service."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            listed = (await api.call("GET", SERVICES, resourceVersion="0"))["items"]
            conditions = [
                {c["type"]: c["status"] for c in (one.get("status") or {}).get("conditions") or ()}
                for one in listed
            ]
            ready, measured = (
                sum(one.get(kind) == "True" for one in conditions) for kind in ("Ready", "MetricsAvailable")
            )
            say(f"{pods.ready} pods Ready, {ready} services Ready, {measured} measured")
            if ready == measured == services and pods.ready >= services * cluster.PODS_OF_A_SERVICE:
                return
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run for ever beside the block; what breaks in it breaks the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def say(text: str) -> None:
    print(f"{time.strftime('%T')} {text}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--nodes", type=int, help="as many as services, if not given")
    parser.add_argument("--scrape-seconds", type=int, default=15)
    parser.add_argument("--changes-per-minute", type=float, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="a new one, for logs and data; else they are deleted"
    )
    parser.add_argument(
        "--record", action="store_true", help="add the line to e2e/results/operator_scale.jsonl"
    )
    asked = parser.parse_args()
    asked.nodes = asked.nodes or asked.services
    return asked


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    else:
        keep.mkdir(parents=True)
        yield keep


def main() -> None:
    asked = arguments()
    with _folder(asked.keep) as folder, stage(asked, folder) as made:
        found = summary(asyncio.run(measure(asked, made)))
    shape = {key: getattr(asked, key) for key in ("services", "nodes", "scrape_seconds", "seed")}
    figures = {**shape, "load_average": os.getloadavg()[0], **found}
    print("\n".join(table(found)))
    if asked.record:
        print(results.append("operator_scale", scenario="operator_scale", **figures))
    else:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
