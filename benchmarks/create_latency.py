"""How long a new service waits for its Deployment, and what the operator costs when nothing happens.

    python -m benchmarks.create_latency [--services 200] [--rate 20] [--burst-seconds 0.5] [--idle-seconds 60]

A real control plane runs beside it on the same machine: etcd, API server, controller manager, scheduler. There is
no node, so pods stay Pending, and their nodeSelector names none. Measured from the answer to the create request to
the watch event of the engine's Deployment, by one client. Two runs: a steady rate, and all at once, each on a new
cluster; after the first, the operator's memory and processor time with that many idle services.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.usage import Usage
from paceline.api.crd import custom_resource_definition
from tests.integration.control_plane import ControlPlane, control_plane
from tests.integration.controller.programs import beside, process

ROOT = Path(__file__).resolve().parent.parent
SERVICES = "/apis/paceline.dev/v1alpha1/namespaces/default/inferenceservices"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
METADATA_EVENTS = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


@dataclass(slots=True)
class Marks:
    """By service: when its create was answered, and when the watch told of its Deployment."""

    created_s: dict[str, float] = field(default_factory=dict)
    seen_s: dict[str, float] = field(default_factory=dict)

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_seen(self, count: int) -> None:
        while len(self.seen_s) < count:
            self.changed.clear()
            await self.changed.wait()

    def waits_s(self) -> list[float]:
        # The watch may be ahead of the answer to the create: that is no wait.
        return sorted(max(0.0, self.seen_s[name] - at) for name, at in self.created_s.items())


class Cluster:
    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession) -> None:
        self._url = plane.url
        self._session = session

    async def call(self, method: str, path: str, body: Any = None, **params: str) -> dict[str, Any]:
        async with self._session.request(method, self._url + path, json=body, params=params) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")
            parsed: dict[str, Any] = json.loads(text)
            return parsed

    async def create_services(self, count: int, *, over_s: float, marks: Marks) -> None:
        """Open loop: the next one is sent at its time, whatever became of the last."""
        begin_s = time.monotonic()

        async def one(number: int) -> None:
            name = f"service-{number}"
            await self.call("POST", SERVICES, service(name))
            marks.created_s[name] = time.monotonic()

        tasks = []
        for number in range(count):
            await asyncio.sleep(max(0.0, begin_s + number * over_s / count - time.monotonic()))
            tasks.append(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)

    async def watch_deployments(self, *, marks: Marks, ready: asyncio.Event) -> None:
        listed = await self.call("GET", DEPLOYMENTS, limit="1")
        params = {
            "watch": "true",
            "labelSelector": "paceline.dev/component=engine",
            "resourceVersion": listed["metadata"]["resourceVersion"],
        }
        async with self._session.get(
            self._url + DEPLOYMENTS,
            params=params,
            headers={"Accept": METADATA_EVENTS},
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            ready.set()
            async for line in answer.content:
                now_s = time.monotonic()
                name = json.loads(line)["object"]["metadata"]["labels"]["paceline.dev/service"]
                marks.seen_s.setdefault(name, now_s)
                marks.changed.set()


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct", "kvCache": {"size": "1Gi"}},
            "slo": {"preset": "Standard"},
            "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
            "accelerator": {"resourceName": "cpu", "nodeSelector": {"paceline.dev/benchmark": "nowhere"}},
        },
    }


async def run(cluster: Cluster, count: int, *, over_s: float) -> Marks:
    marks, ready = Marks(), asyncio.Event()
    watch = asyncio.create_task(cluster.watch_deployments(marks=marks, ready=ready))
    await ready.wait()
    await cluster.create_services(count, over_s=over_s, marks=marks)
    async with asyncio.timeout(120):
        await marks.wait_seen(count)
    watch.cancel()
    return marks


async def settle(cluster: Cluster, count: int) -> float:
    """Until every pod exists (one engine, two routers each) and every status is written; the seconds that took.

    The controller manager makes the pods, with its default limit of 20 requests a second.
    """
    begin_s = time.monotonic()
    async with asyncio.timeout(600):
        while True:
            pods = await cluster.call("GET", "/api/v1/namespaces/default/pods", resourceVersion="0")
            if len(pods["items"]) == 3 * count:
                found = await cluster.call("GET", SERVICES, resourceVersion="0")
                if all((one.get("status") or {}).get("conditions") for one in found["items"]):
                    return time.monotonic() - begin_s
            await asyncio.sleep(2)


def show(what: str, marks: Marks) -> None:
    waits_s = marks.waits_s()
    cuts = statistics.quantiles(waits_s, n=100, method="inclusive")
    print(
        f"{what}: n={len(waits_s)} p50={cuts[49]:.3f} s p90={cuts[89]:.3f} s p99={cuts[98]:.3f} s "
        f"max={waits_s[-1]:.3f} s",
        flush=True,
    )


async def steady(cluster: Cluster, pid: int, args: argparse.Namespace) -> None:
    print(f"operator at start: {Usage.of(pid).resident_mib:.0f} MiB resident")
    show(
        f"{args.services} services at {args.rate:g}/s",
        await run(cluster, args.services, over_s=args.services / args.rate),
    )
    took_s = await settle(cluster, args.services)
    print(f"all pods of all services after another {took_s:.0f} s")
    await asyncio.sleep(15)
    before = Usage.of(pid)
    await asyncio.sleep(args.idle_seconds)
    after = Usage.of(pid)
    print(
        f"{args.services} idle services: {after.resident_mib:.0f} MiB resident, "
        f"{(after.cpu_s - before.cpu_s) / args.idle_seconds * 100:.1f} % of one core"
    )


async def burst(cluster: Cluster, pid: int, args: argparse.Namespace) -> None:
    before = Usage.of(pid)
    marks = await run(cluster, args.services, over_s=args.burst_seconds)
    created_s = sorted(marks.created_s.values())
    print(
        f"creates answered within {created_s[-1] - created_s[0]:.2f} s; "
        f"the operator took {Usage.of(pid).cpu_s - before.cpu_s:.2f} s of processor time"
    )
    show(f"{args.services} services within {args.burst_seconds:g} s", marks)


Measurement = Callable[[Cluster, int, argparse.Namespace], Coroutine[Any, Any, None]]


def on_a_new_cluster(measurement: Measurement, args: argparse.Namespace) -> None:
    """So that no run pays for the garbage of another."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            control_plane(folder) as plane,
            beside(plane, "kube-controller-manager", folder=folder),
            beside(plane, "kube-scheduler", folder=folder),
        ):
            kubectl: list[Path | str] = [plane.binaries / "kubectl", "--kubeconfig", plane.kubeconfig]
            crd = yaml.safe_dump(custom_resource_definition()).encode()
            for arguments, text in (
                (["apply", "--server-side", "-f", "-"], crd),
                (["wait", "--for=condition=Established", "crd", "--all"], None),
            ):
                subprocess.run([*kubectl, *arguments], input=text, check=True, stdout=subprocess.DEVNULL)
            command: list[Path | str] = [
                sys.executable, "-c", "from paceline.cli import main; main()", "operator",
                "--kubeconfig", plane.kubeconfig, "--lease-namespace", "default",
                "--metrics-host", "127.0.0.1", "--metrics-port", "0",
            ]  # fmt: skip
            env = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'runtime'}"}
            with process(command, log=args.operator_log or folder / "operator.log", env=env) as operator:
                # The controllers of a new cluster are busy with themselves at first.
                time.sleep(10)
                asyncio.run(_connected(measurement, plane, operator.pid, args))


async def _connected(
    measurement: Measurement, plane: ControlPlane, pid: int, args: argparse.Namespace
) -> None:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(plane.ca_file)), limit=0)
    headers = {"Authorization": f"Bearer {plane.token}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        await measurement(Cluster(plane, session), pid, args)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--burst-seconds", type=float, default=0.5)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--only", choices=["steady", "burst"])
    parser.add_argument("--operator-log", type=Path, help="where the operator's log goes")
    args = parser.parse_args()
    for name, measurement in (("steady", steady), ("burst", burst)):
        if args.only in (None, name):
            on_a_new_cluster(measurement, args)


if __name__ == "__main__":
    main()
