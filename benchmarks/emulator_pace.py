"""Whether emulated GPUs keep the time that they pretend to: many pods, streams over all of them, on this machine.

    python -m benchmarks.emulator_pace --pods 40 --tokens-per-second 2500 --seconds 60

Starts the pods as a cluster does (one process each), measures what they cost while nothing happens, then sends
requests at random moments to random pods and reads every stream to its end. The lag of a step is what the pods
export: how much later it ended than its timing table says. Pods, client and whatever else runs share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from e2e.load.step_lag import StepLag
from paceline_core import LatencyTarget, Targets

PROGRAM = [sys.executable, "-m", "paceline_runtime.cli", "serve"]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROMPT_BYTES = 2000


class Pod:
    def __init__(self, folder: Path, *, asked: argparse.Namespace) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        folder.mkdir()
        target = LatencyTarget(
            name="all",
            max_prompt_tokens=None,
            ttft_ms=2000,
            ttft_per_thousand_prompt_tokens_ms=0,
            tpot_ms=50,
        )
        (folder / "targets.json").write_text(Targets(classes=(target,)).to_json())
        arguments = [
            *("--model-uri", "hf://emulated/model@main", "--served-model-name", "m"),
            *("--tensor-parallel-size", str(asked.tp), "--max-model-len", "8192"),
            *("--kv-cache-bytes", str(2**30), "--max-prompt-tokens", "7000"),
            *("--max-output-tokens", "1000", "--max-request-seconds", "60", "--device", "cuda"),
            *("--service", "bench", "--targets", str(folder / "targets.json")),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--admin-socket", str(folder / "admin.sock"), "--emulate", "--emulate-gpu", asked.gpu),
            *("--emulate-model", asked.model, "--emulate-format", asked.format),
            *("--emulate-start-seconds", "0"),
        ]
        self._log = (folder / "log").open("wb")
        self._child = subprocess.Popen([*PROGRAM, *arguments], stdout=self._log, stderr=self._log)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def wait_ready(self) -> None:
        for _ in range(1200):
            try:
                self.get("/ready")
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"pod on port {self.port} did not start")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()
        self._log.close()


async def stream(port: int, *, output_tokens: int) -> tuple[int, float]:
    """(tokens, seconds from the first to the last)"""
    body = {
        "model": "m",
        "prompt": "x" * PROMPT_BYTES,
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "stream": True,
    }
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    tokens, first_s, last_s, done = 0, 0.0, 0.0, False
    while part := await reader.read(65536):
        if seen := part.count(b'"text":"'):
            last_s = time.monotonic()
            first_s = first_s or last_s
            tokens += seen
        done = done or b"[DONE]" in part
    writer.close()
    if not done or tokens != output_tokens:
        raise RuntimeError(f"a stream broke: {tokens} of {output_tokens} tokens")
    return tokens, last_s - first_s


async def load(pods: list[Pod], *, tokens_per_s: float, seconds: float, output_tokens: int) -> int:
    """Poisson arrivals; the tokens that came."""
    dice = random.Random(1)
    running: list[asyncio.Task[tuple[int, float]]] = []
    since_s = at_s = time.monotonic()
    while (at_s := at_s + dice.expovariate(tokens_per_s / output_tokens)) < since_s + seconds:
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))
        pod = dice.choice(pods)
        running.append(asyncio.create_task(stream(pod.port, output_tokens=output_tokens)))
    return sum(tokens for tokens, _ in await asyncio.gather(*running))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pods", type=int, default=40)
    parser.add_argument("--tokens-per-second", type=float, default=2500)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--idle-seconds", type=float, default=20)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--format", default="fp8")
    parser.add_argument("--tp", type=int, default=4)
    asked = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pods: list[Pod] = []
        for number in range(asked.pods):
            pods.append(Pod(root / str(number), asked=asked))
            stack.callback(pods[-1].stop)
        for pod in pods:
            pod.wait_ready()
        start_s = sum(pod.cpu_s() for pod in pods) / len(pods)
        resident = sorted(pod.resident_mb() for pod in pods)
        print(
            f"start: {start_s:.2f} s of CPU each; resident: median {resident[len(pods) // 2]:.1f} MB",
            flush=True,
        )
        before_s = [pod.cpu_s() for pod in pods]
        time.sleep(asked.idle_seconds)
        idle = [(pod.cpu_s() - cpu_s) / asked.idle_seconds for pod, cpu_s in zip(pods, before_s, strict=True)]
        print(
            f"idle: {100 * sum(idle) / len(idle):.3f} % of a core each, at most {100 * max(idle):.2f} %",
            flush=True,
        )

        before_s = [pod.cpu_s() for pod in pods]
        client_s, since_s = time.process_time(), time.monotonic()
        tokens = asyncio.run(
            load(
                pods,
                tokens_per_s=asked.tokens_per_second,
                seconds=asked.seconds,
                output_tokens=asked.output_tokens,
            )
        )
        took_s = time.monotonic() - since_s
        pods_s = sum(pod.cpu_s() for pod in pods) - sum(before_s)
        lag = StepLag()
        for pod in pods:
            lag.hear(str(pod.port), pod.get("/metrics"))
        print(
            f"load: {tokens / took_s:.0f} tokens/s over {len(pods)} pods for {took_s:.0f} s, no stream broke"
        )
        print(
            f"CPU: pods {pods_s / took_s:.2f} cores ({1e6 * pods_s / tokens:.0f} µs a token), client "
            f"{(time.process_time() - client_s) / took_s:.2f}; load average {os.getloadavg()[0]:.1f}"
        )
        p50, p99, last = (1000 * (lag.percentile_s(share) or 0.0) for share in (0.5, 0.99, 0.999))
        print(
            f"step lag: p50 {p50:.2f} ms, p99 {p99:.2f} ms, p99.9 {last:.2f} ms of {lag.steps} steps; "
            f"{100 * (lag.share_within(0.002) or 0.0):.2f} % within 2 ms"
        )
        print(f"resident at the end: at most {max(pod.resident_mb() for pod in pods):.1f} MB")


if __name__ == "__main__":
    main()
