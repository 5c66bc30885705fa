"""Emulated engines as processes: the same routes, admission, drain and end as in an engine pod."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.integration.gate.processes import PROGRAM, Child

TARGETS = {
    "latencyClasses": [
        {"name": "all", "timeToFirstTokenMilliseconds": 500, "timePerOutputTokenMilliseconds": 40}
    ]
}


@dataclass(slots=True)
class Engine:
    """`paceline-runtime serve --emulate` on one loopback address, and its preStop hook."""

    address: str
    process: Child
    hook: Child


def engine(
    folder: Path,
    *,
    ip: str,
    port: int,
    routers: str | None = None,
    max_sequences: int = 64,
    max_queued: int = 64,
    step_ms: int = 20,
    gpus: int | None = None,
) -> Engine:
    """With `gpus`, the file `layout` in the folder orders another layout of them."""
    folder.mkdir()
    (folder / "targets.json").write_text(json.dumps(TARGETS))
    socket = ["--admin-socket", str(folder / "admin.sock")]
    argv = [
        *(PROGRAM, "serve", "--emulate", "--emulate-step-ms", str(step_ms), "--emulate-start-seconds", "0.1"),
        *("--model-uri", "bundled://smollm2-135m-instruct", "--served-model-name", "m"),
        *("--max-model-len", "2048", "--kv-cache-bytes", "1000000000", "--device", "cpu", "--service", "s"),
        *("--max-prompt-tokens", "1024", "--max-output-tokens", "1024", "--max-request-seconds", "60"),
        *("--max-num-seqs", str(max_sequences), "--max-queued-requests", str(max_queued)),
        *("--host", ip, "--port", str(port), "--targets", str(folder / "targets.json")),
        *(["--routers", routers] if routers is not None else []),
        *socket,
        *(() if gpus is None else _layouts(folder, gpus=gpus)),
    ]
    return Engine(
        address=f"{ip}:{port}",
        process=Child(argv, folder / "engine.log", {"POD_IP": ip}),
        hook=Child([PROGRAM, "drain", *socket], folder / "hook.log"),
    )


def _layouts(folder: Path, *, gpus: int) -> tuple[str, ...]:
    """The model is one that any number of devices fits."""
    return (
        *("--model-uri", "hf://org/model@main"),
        *("--tensor-parallel-size", str(gpus), "--layout-file", str(folder / "layout")),
    )
