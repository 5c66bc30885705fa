"""On a full node a service changes its tensor-parallel size within its pod: a real operator, killed again and again, a
real API server, and a real (emulated) engine process in the place of the container.

The test stands for scheduler and kubelet: whatever comes beside the first engine pod finds no node; the pod's
annotation is written into a file, and what the engine says of its readiness into the pod.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paceline_core import LAYOUT_ANNOTATION, LatencyTarget, Targets
from tests.integration.controller.cluster import Cluster, eventually, pods_of, service
from tests.integration.controller.kubelet import bind, say
from tests.integration.controller.operators import Operators, bury
from tests.integration.controller.repeated import repeated

pytestmark = pytest.mark.apiserver

IP, PORT = "127.0.0.91", 8000
"""The port is that of every engine pod."""

WITHIN_S = 150.0
EASY = LatencyTarget(
    name="all", max_prompt_tokens=None, ttft_ms=1000, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=1000
)


class Node:
    """Eight GPUs, and all of them held by the first engine pod."""

    def __init__(self, cluster: Cluster, folder: Path, *, name: str | None = None) -> None:
        """`name`: the node that the API server knows, where the test needs one."""
        self._cluster = cluster
        self._name = name
        self._layout = folder / "layout"
        (folder / "targets.json").write_text(Targets(classes=(EASY,)).to_json())
        arguments = [
            *("serve", "--emulate", "--emulate-step-ms", "20", "--emulate-start-seconds", "0.2"),
            *("--model-uri", "hf://org/model@main", "--served-model-name", "m", "--max-model-len", "2048"),
            *("--kv-cache-bytes", "1000000000", "--device", "cuda", "--service", "chat"),
            *("--max-prompt-tokens", "1024", "--max-output-tokens", "1024", "--max-request-seconds", "60"),
            *("--tensor-parallel-size", "8", "--targets", str(folder / "targets.json")),
            *("--host", IP, "--port", str(PORT), "--admin-socket", str(folder / "admin.sock")),
            *("--layout-file", str(self._layout)),
        ]
        with (folder / "engine.log").open("wb") as log:
            self.engine = subprocess.Popen(
                [sys.executable, "-m", "paceline_runtime.cli", *arguments], stdout=log, stderr=log
            )

    def turn(self) -> None:
        held = False
        for pod in sorted(
            pods_of(self._cluster, "chat"), key=lambda one: one["metadata"]["creationTimestamp"]
        ):
            if pod["metadata"]["labels"]["paceline.dev/component"] == "router":
                say(self._cluster, pod, ready=True, ip=IP)
            elif not held:
                held = True
                if self._name is not None and not pod["spec"].get("nodeName"):
                    bind(self._cluster, pod, node=self._name)
                order = (pod["metadata"].get("annotations") or {}).get(LAYOUT_ANNOTATION, "")
                self._layout.write_text(order)
                say(self._cluster, pod, ready=is_ready(), ip=IP)
            else:
                say(self._cluster, pod, ready=False, scheduled=False)


def is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://{IP}:{PORT}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def served() -> tuple[int, int] | None:
    try:
        with urllib.request.urlopen(f"http://{IP}:{PORT}/paceline/info", timeout=5) as answer:
            info = json.load(answer)
    except OSError:
        return None
    return info["tensorParallelSize"], info["dataParallelSize"]


@contextmanager
def full_node(cluster: Cluster, folder: Path, *, name: str | None = None) -> Iterator[None]:
    node = Node(cluster, folder, name=name)
    try:
        with repeated(node.turn, every_s=0.5):
            yield
    finally:
        node.engine.kill()
        node.engine.wait()


def ended(cluster: Cluster, size: int, replicas: int) -> bool:
    status = (cluster.get("InferenceService", "chat") or {}).get("status") or {}
    current = (status.get("shape") or {}).get("current") or {}
    settled = (cluster.condition("chat", "Progressing") or {}).get("reason") == "Settled"
    return settled and current == {"tensorParallelSize": size, "replicas": replicas}


def test_one_pod_takes_every_layout_while_the_operator_is_killed(
    cluster: Cluster, operators: Operators, tmp_path: Path
) -> None:
    manifest = service(
        "chat",
        tensor_parallel_size=8,
        model={"uri": "hf://org/model@main", "maxModelTokens": 2048},
        accelerator={"resourceName": "nvidia.com/gpu"},
        runtime={"emulation": {"stepMilliseconds": 20}},
        transition={"inPlace": "Enabled", "maxHoldSeconds": 120},
        admission={"maxOutputTokens": 500, "maxRequestSeconds": 240},
        router={"replicas": 1},
    )
    cluster.create("InferenceService", manifest)
    operator = operators.start().await_leading()
    with full_node(cluster, tmp_path):
        eventually(lambda: ended(cluster, 8, 1), within_s=WITHIN_S)
        (pod,) = (p for p in pods_of(cluster, "chat") if p["spec"]["containers"][0]["name"] == "engine")
        for size, replicas in ((4, 2), (2, 4), (8, 1)):
            patch = {"spec": {"scaling": {"tensorParallelSize": size, "replicas": replicas}}}
            cluster.patch("InferenceService", "chat", patch)
            eventually(
                lambda: cluster.condition("chat", "Transitioning").get("status") == "True", within_s=30
            )
            bury(cluster, operator)
            operator = operators.start().await_leading()
            eventually(lambda size=size, replicas=replicas: ended(cluster, size, replicas), within_s=WITHIN_S)  # type: ignore[misc]
            assert served() == (size, 8 // size)
        (same,) = (p for p in pods_of(cluster, "chat") if p["spec"]["containers"][0]["name"] == "engine")
        assert same["metadata"]["uid"] == pod["metadata"]["uid"]
        assert len(cluster.engines("chat")) == 1
