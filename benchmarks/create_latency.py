"""How long a new service waits for its Deployment, and what the operator costs when nothing happens.

    python -m benchmarks.create_latency [--services 200] [--rate 20] [--burst-seconds 0.5] [--idle-seconds 60]

A real control plane runs beside it on the same machine: etcd, API server, controller manager, scheduler. There is
no node, so pods stay Pending, and their nodeSelector names none. Measured from the answer to the create request to
the watch event of the engine's Deployment, by one client. Two runs: a steady rate, and all at once; after the first,
the operator's memory and processor time with that many idle services.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from paceline.api.crd import custom_resource_definition
from tests.integration.control_plane import ControlPlane, control_plane
from tests.integration.controller.kubernetes import beside, process

ROOT = Path(__file__).resolve().parent.parent
SERVICES = "/apis/paceline.dev/v1alpha1/namespaces/{}/inferenceservices"
DEPLOYMENTS = "/apis/apps/v1/deployments"
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

    async def create_services(self, namespace: str, count: int, *, over_s: float, marks: Marks) -> None:
        """Open loop: the next one is sent at its time, whatever became of the last."""
        begin_s = time.monotonic()

        async def one(number: int) -> None:
            name = f"service-{number}"
            await self.call("POST", SERVICES.format(namespace), service(name, namespace))
            marks.created_s[name] = time.monotonic()

        tasks = []
        for number in range(count):
            await asyncio.sleep(max(0.0, begin_s + number * over_s / count - time.monotonic()))
            tasks.append(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)

    async def watch_deployments(self, namespace: str, *, marks: Marks, ready: asyncio.Event) -> None:
        listed = await self.call("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments", limit="1")
        params = {
            "watch": "true",
            "labelSelector": "paceline.dev/component=engine",
            "resourceVersion": listed["metadata"]["resourceVersion"],
        }
        async with self._session.get(
            f"{self._url}/apis/apps/v1/namespaces/{namespace}/deployments",
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


def service(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": "bundled://smollm2-135m-instruct", "kvCache": {"size": "1Gi"}},
            "slo": {"preset": "Standard"},
            "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
            "accelerator": {"resourceName": "cpu", "nodeSelector": {"paceline.dev/benchmark": "nowhere"}},
        },
    }


async def run(cluster: Cluster, namespace: str, count: int, *, over_s: float) -> Marks:
    await cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    marks, ready = Marks(), asyncio.Event()
    watch = asyncio.create_task(cluster.watch_deployments(namespace, marks=marks, ready=ready))
    await ready.wait()
    await cluster.create_services(namespace, count, over_s=over_s, marks=marks)
    async with asyncio.timeout(120):
        await marks.wait_seen(count)
    watch.cancel()
    return marks


async def settle(cluster: Cluster, namespace: str, count: int) -> float:
    """Until every pod exists (one engine, two routers each) and every status is written; the seconds that took.

    The controller manager makes the pods, with its default limit of 20 requests a second.
    """
    begin_s = time.monotonic()
    async with asyncio.timeout(600):
        while True:
            pods = await cluster.call("GET", f"/api/v1/namespaces/{namespace}/pods", resourceVersion="0")
            if len(pods["items"]) == 3 * count:
                found = await cluster.call("GET", SERVICES.format(namespace), resourceVersion="0")
                if all((one.get("status") or {}).get("conditions") for one in found["items"]):
                    return time.monotonic() - begin_s
            await asyncio.sleep(2)


async def remove(cluster: Cluster, namespace: str) -> None:
    await cluster.call("DELETE", SERVICES.format(namespace))
    deadline_s = time.monotonic() + 300
    while (await cluster.call("GET", f"/api/v1/namespaces/{namespace}/pods", limit="1"))["items"]:
        if time.monotonic() > deadline_s:
            raise TimeoutError("the pods of deleted services are still there")
        await asyncio.sleep(1)


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_s: float
    resident_mib: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return cls(
            cpu_s=(int(fields[11]) + int(fields[12])) / ticks, resident_mib=int(resident.split()[1]) / 1024
        )


def show(what: str, marks: Marks) -> None:
    waits_s = marks.waits_s()
    cuts = statistics.quantiles(waits_s, n=100, method="inclusive")
    print(
        f"{what}: n={len(waits_s)} p50={cuts[49]:.3f} s p90={cuts[89]:.3f} s p99={cuts[98]:.3f} s "
        f"max={waits_s[-1]:.3f} s",
        flush=True,
    )


async def measure(plane: ControlPlane, pid: int, args: argparse.Namespace) -> None:
    context = aiohttp.TCPConnector(ssl=_context(plane), limit=0)
    headers = {"Authorization": f"Bearer {plane.token}"}
    async with aiohttp.ClientSession(connector=context, headers=headers) as session:
        cluster = Cluster(plane, session)
        print(f"operator at start: {Usage.of(pid).resident_mib:.0f} MiB resident")
        steady = await run(cluster, "steady", args.services, over_s=args.services / args.rate)
        show(f"{args.services} services at {args.rate:g}/s", steady)
        took_s = await settle(cluster, "steady", args.services)
        print(f"all pods of all services after another {took_s:.0f} s")
        await asyncio.sleep(15)
        before = Usage.of(pid)
        await asyncio.sleep(args.idle_seconds)
        after = Usage.of(pid)
        print(
            f"{args.services} idle services: {after.resident_mib:.0f} MiB resident, "
            f"{(after.cpu_s - before.cpu_s) / args.idle_seconds * 100:.1f} % of one core"
        )
        await remove(cluster, "steady")
        burst = await run(cluster, "burst", args.services, over_s=args.burst_seconds)
        created_s = sorted(burst.created_s.values())
        print(f"creates answered within {created_s[-1] - created_s[0]:.2f} s")
        show(f"{args.services} services within {args.burst_seconds:g} s", burst)
        took_s = await settle(cluster, "burst", args.services)
        print(f"all pods of all services after another {took_s:.0f} s")


def _context(plane: ControlPlane) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(plane.ca_file))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--burst-seconds", type=float, default=0.5)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--logs", type=Path, help="folder for the logs of all processes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with (
            control_plane(folder) as plane,
            beside(plane, "kube-controller-manager", folder=folder),
            beside(plane, "kube-scheduler", folder=folder),
        ):
            kubectl = [plane.binaries / "kubectl", "--kubeconfig", plane.kubeconfig]
            crd = yaml.safe_dump(custom_resource_definition())
            subprocess.run([*kubectl, "apply", "--server-side", "-f", "-"], input=crd.encode(), check=True)
            subprocess.run([*kubectl, "wait", "--for=condition=Established", "crd", "--all"], check=True)
            command: list[Path | str] = [
                sys.executable, "-c", "from paceline.cli import main; main()", "operator",
                "--kubeconfig", plane.kubeconfig, "--lease-namespace", "default",
                "--metrics-host", "127.0.0.1", "--metrics-port", "0",
            ]  # fmt: skip
            env = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'runtime'}"}
            with process(command, log=folder / "operator.log", env=env) as operator:
                time.sleep(5)
                asyncio.run(measure(plane, operator.pid, args))


if __name__ == "__main__":
    main()
