"""`paceline serve` with the emulated engine: a real process, asked over HTTP and ended as a person ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PACELINE = Path(sys.executable).parent / "paceline"
START_S = 60
Serving = subprocess.Popen[str]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    def write(**spec: Any) -> Path:
        body = {
            "apiVersion": "paceline.dev/v1alpha1",
            "kind": "InferenceService",
            "metadata": {"name": "chat"},
            "spec": {
                "model": {"uri": "bundled://smollm2-135m-instruct", "maxModelTokens": 2048},
                "admission": {"maxOutputTokens": 256, "maxRequestSeconds": 60},
                "scaling": {"mode": "Manual", "replicas": 1, "tensorParallelSize": 1},
                "runtime": {"emulation": {"stepMilliseconds": 50, "startSeconds": 0}},
                **spec,
            },
        }
        file = tmp_path / "chat.yaml"
        file.write_text(yaml.safe_dump(body), encoding="utf-8")
        return file

    return write


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(manifest: Path, *, port: int) -> Serving:
        words = [str(PACELINE), "serve", "-f", str(manifest), "--port", str(port)]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PACELINE_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"},
            # A shell ignores SIGINT for what it starts in the background, and so would all below it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=30)


def await_line(process: Serving, *, containing: str) -> str:
    assert process.stdout is not None
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    try:
        seen = []
        for line in process.stdout:
            seen.append(line)
            if containing in line:
                return line
    finally:
        watchdog.cancel()
    raise AssertionError(f"no line with {containing!r} in:\n{''.join(seen)}")


def stream(url: str, *, tokens: int) -> Iterator[str]:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": "?"}],
        "max_tokens": tokens,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        for line in answer:
            if data := line.decode().strip().removeprefix("data: "):
                yield data


def test_ctrl_c_lets_a_stream_run_to_its_end_and_leaves_no_process(
    manifest: Callable[..., Path], serve: Callable[..., Serving]
) -> None:
    port = free_port()
    process = serve(manifest(), port=port)
    await_line(process, containing="is ready after")
    answer = stream(f"http://127.0.0.1:{port}", tokens=40)
    next(answer)
    process.send_signal(signal.SIGINT)
    assert list(answer)[-1] == "[DONE]"
    assert process.wait(timeout=30) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_it_listens_on_this_machine_only(
    manifest: Callable[..., Path], serve: Callable[..., Serving]
) -> None:
    port = free_port()
    await_line(serve(manifest(), port=port), containing="is ready after")
    listening = Path("/proc/net/tcp").read_text(encoding="utf-8").split()
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


def test_an_engine_that_dies_ends_the_command_with_the_engines_words(
    manifest: Callable[..., Path], serve: Callable[..., Serving]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = serve(manifest(), port=int(taken.getsockname()[1]))
        words, _ = process.communicate(timeout=START_S)
    assert process.returncode == 1
    assert "in use" in words


def test_what_is_not_valid_is_said_before_anything_starts(
    manifest: Callable[..., Path], serve: Callable[..., Serving], tmp_path: Path
) -> None:
    process = serve(manifest(scaling={"replicas": "many"}), port=free_port())
    words, _ = process.communicate(timeout=START_S)
    assert process.returncode == 1
    assert "spec.scaling.replicas" in words
    assert not (tmp_path / "cache").exists()
