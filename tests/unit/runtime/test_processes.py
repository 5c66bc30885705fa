"""The real programs as processes: an emulated pod from start to SIGTERM, the preStop hook, the launcher's
child."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paceline_core import Targets
from paceline_runtime.launch import launcher
from paceline_runtime.launch.engine_process import EngineProcess
from paceline_runtime.launch.failure import Refused, StartFailure, report
from tests.unit.runtime.pod import options, target

PROGRAM = [sys.executable, "-m", "paceline_runtime.cli"]
RUNTIME = Path(__file__).parents[3] / "runtime"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """`paceline-runtime serve --emulate`."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "targets.json").write_text(Targets(classes=(target(),)).to_json())
        arguments = [
            *("serve", "--model-uri", "bundled://smollm2-135m-instruct", "--served-model-name", "m"),
            *("--max-model-len", "2048", "--kv-cache-bytes", str(2**28), "--max-prompt-tokens", "2000"),
            *("--max-output-tokens", "1000", "--max-request-seconds", "60", "--device", "cpu"),
            *("--service", "demo", "--targets", str(folder / "targets.json"), "--host", "127.0.0.1"),
            *("--canary-reference", str(folder / "canary.json")),
            *("--port", str(self.port), "--admin-socket", str(folder / "admin.sock"), "--emulate", *more),
        ]
        environ = {
            **os.environ,
            "PACELINE_TERMINATION_LOG": str(folder / "termination"),
            "PYTHONPATH": str(RUNTIME),
        }
        with (folder / "log").open("wb") as log:
            self.child = subprocess.Popen([*PROGRAM, *arguments], stdout=log, stderr=log, env=environ)

    @property
    def verdict(self) -> dict[str, str]:
        return dict(json.loads((self.folder / "termination").read_text()))

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def status(self, path: str) -> int | None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None

    def text(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def json(self, path: str) -> dict[str, Any]:
        return dict(json.loads(self.text(path)))

    def run(self, *arguments: str) -> str:
        """Another command, as in the same container."""
        return subprocess.run(
            [*PROGRAM, *arguments], check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def wait_ready(self) -> None:
        wait_until(lambda: self.status("/ready") == 200)

    def stream(self, **fields: object) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        message = {"role": "user", "content": "hello"}
        body = {"model": "m", "messages": [message], "stream": True, "ignore_eos": True, **fields}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        return connection.getresponse()


def wait_until(condition: object, *, timeout_s: float = 30) -> None:
    assert callable(condition)
    since_s = time.monotonic()
    while not condition():
        assert time.monotonic() - since_s < timeout_s, "not in time"
        time.sleep(0.05)


@contextmanager
def emulated(folder: Path, *more: str) -> Iterator[Process]:
    process = Process(folder, *more)
    try:
        yield process
    finally:
        process.child.kill()
        process.child.wait()


def test_sigterm_lets_a_stream_end_and_the_process_exits_with_0(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-step-ms", "10", "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        stream = process.stream(max_tokens=150)
        stream.readline()
        process.child.send_signal(signal.SIGTERM)
        assert stream.read().endswith(b"data: [DONE]\n\n")
        assert process.child.wait(10) == 0


def test_a_pod_is_not_ready_before_its_start_time_has_passed(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-start-seconds", "2") as process:
        wait_until(lambda: process.status("/ready") is not None)
        assert process.status("/ready") == 503
        assert process.status("/live") == 200
        process.wait_ready()
        assert "event=ready" in process.log
        assert "event=emulated" in process.log


def test_the_pre_stop_hook_returns_when_the_last_stream_has_ended(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-step-ms", "10", "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        stream = process.stream(max_tokens=200)
        stream.readline()
        hook = [*PROGRAM, "drain", "--admin-socket", str(tmp_path / "admin.sock")]
        since_s = time.monotonic()
        done = subprocess.run(hook, check=True, capture_output=True, text=True, timeout=60)
        assert "drained, 0 requests left" in done.stderr
        assert time.monotonic() - since_s > 0.5
        assert stream.read().endswith(b"data: [DONE]\n\n")
        assert process.status("/ready") == 503
        assert process.stream().status == 429


def test_the_pre_stop_hook_of_a_pod_without_a_server_returns_at_once(tmp_path: Path) -> None:
    hook = [*PROGRAM, "drain", "--admin-socket", str(tmp_path / "none.sock")]
    done = subprocess.run(hook, check=True, capture_output=True, text=True, timeout=30)
    assert "nothing to drain" in done.stderr


def test_a_server_that_is_killed_while_draining_lets_the_hook_return(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-step-ms", "60000", "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        threading.Thread(target=lambda: suppress(process.stream), daemon=True).start()
        hook = [*PROGRAM, "drain", "--admin-socket", str(tmp_path / "admin.sock")]
        with subprocess.Popen(hook, stderr=subprocess.PIPE, text=True) as waiting:
            wait_until(lambda: process.status("/ready") == 503)
            process.child.kill()
            assert waiting.wait(30) == 0


def laid_out(folder: Path, *more: str) -> tuple[str, ...]:
    """Two devices, and the file that may tell another layout."""
    sizes = ("--tensor-parallel-size", "2", "--layout-file", str(folder / "layout"))
    return (*sizes, "--model-uri", "hf://org/model@main", "--emulate-step-ms", "10", *more)


def layout_of(process: Process) -> tuple[int, int]:
    info = process.json("/paceline/info")
    return info["tensorParallelSize"], info["dataParallelSize"]


def is_ready_in(process: Process, layout: tuple[int, int]) -> bool:
    return process.status("/ready") == 200 and layout_of(process) == layout


def test_another_layout_is_served_by_the_same_process_and_a_stream_ends_before(tmp_path: Path) -> None:
    with emulated(tmp_path, *laid_out(tmp_path, "--emulate-start-seconds", "0")) as process:
        process.wait_ready()
        assert layout_of(process) == (2, 1)
        stream = process.stream(max_tokens=200)
        stream.readline()
        (tmp_path / "layout").write_text("tp=1,dp=2,change=1")
        assert stream.read().endswith(b"data: [DONE]\n\n")
        wait_until(lambda: is_ready_in(process, (1, 2)))
        assert process.child.poll() is None
        page = process.text("/metrics")
        assert 'paceline_layout_info{data_parallel_size="2",tensor_parallel_size="1"} 1.0' in page
        assert 'vllm:num_requests_running{engine="1",model_name="m"}' in page
        (tmp_path / "layout").write_text("tp=2,dp=1,change=2")
        wait_until(lambda: is_ready_in(process, (2, 1)))


def test_a_layout_whose_start_ends_the_process_is_left_at_the_next_one(tmp_path: Path) -> None:
    flags = laid_out(tmp_path, "--emulate-stages", "weights=0.5")
    with emulated(tmp_path, *flags) as process:
        process.wait_ready()
        (tmp_path / "layout").write_text("tp=1,dp=2,change=1")
        wait_until(lambda: process.status("/ready") != 200)
        wait_until(lambda: process.log.count("event=emulated") == 2)
        process.child.kill()
    with emulated(tmp_path, *flags) as process:
        wait_until(lambda: is_ready_in(process, (2, 1)))
        assert process.json("/paceline/info")["refusedLayout"]["order"] == "tp=1,dp=2,change=1"
        time.sleep(2)
        assert is_ready_in(process, (2, 1))
        (tmp_path / "layout").write_text("tp=1,dp=2,change=2")
        wait_until(lambda: is_ready_in(process, (1, 2)))


def test_a_layout_that_is_refused_leads_back_within_the_process(tmp_path: Path) -> None:
    table = ("--emulate-gpu", "h200", "--emulate-model", "llama-3.1-70b", "--emulate-format", "bf16")
    flags = laid_out(tmp_path)
    sizes = ("--tensor-parallel-size", "8", "--layout-file", str(tmp_path / "layout"))
    with emulated(tmp_path, *sizes, *flags[4:6], *table, "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        (tmp_path / "layout").write_text("tp=1,dp=8,change=1")
        wait_until(lambda: "event=layout_refused" in process.log)
        wait_until(lambda: is_ready_in(process, (8, 1)))
        refused = process.json("/paceline/info")["refusedLayout"]
        assert refused["order"] == "tp=1,dp=8,change=1"
        assert "tensor-parallel size" in refused["message"]


def test_sigterm_right_after_a_change_is_heeded(tmp_path: Path) -> None:
    with emulated(tmp_path, *laid_out(tmp_path, "--emulate-start-seconds", "0")) as process:
        process.wait_ready()
        (tmp_path / "layout").write_text("tp=1,dp=2,change=1")
        wait_until(lambda: "event=layout_change" in process.log)
        wait_until(lambda: process.status("/ready") is None)
        process.child.send_signal(signal.SIGTERM)
        process.child.wait(20)


def suppress(call: object) -> None:
    try:
        assert callable(call)
        call()
    except OSError:
        pass  # the server was killed


def test_an_emulated_engine_imports_nothing_heavy() -> None:
    """Forty of them run on two cores."""
    heavy = ("aiohttp", "fastapi", "pydantic", "numpy", "vllm", "huggingface_hub")
    code = (
        "import sys, paceline_runtime.launch.serve_command, paceline_runtime.emulator.process\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(RUNTIME)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ
    )
    assert done.stdout.strip() == "[]"


def test_the_pre_stop_hook_imports_nothing_heavy() -> None:
    """It has to post before anything else happens in a pod whose node is busy."""
    heavy = (
        "aiohttp",
        "fastapi",
        "starlette",
        "uvicorn",
        "pydantic",
        "structlog",
        "numpy",
        "vllm",
        "huggingface_hub",
    )
    code = (
        "import sys; from paceline_runtime.cli import main\n"
        "try: main(['drain', '--admin-socket', '/nowhere/admin.sock'])\n"
        f"except SystemExit: print([name for name in {heavy} if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(RUNTIME)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        pytest.param(("--tensor-parallel-size", "2"), "spec.scaling.tensorParallelSize", id="TP"),
        pytest.param(("--max-model-len", "100000"), "spec.model.maxModelTokens", id="length"),
        pytest.param(("--model-uri", "hf://org/name"), "spec.model.uri", id="no revision"),
    ],
)
def test_a_refusal_exits_with_78_and_leaves_its_verdict(
    tmp_path: Path, more: tuple[str, ...], field: str
) -> None:
    with emulated(tmp_path, *more) as process:
        assert process.child.wait(30) == 78
        assert process.verdict["verdict"] == "Refused"
        assert process.verdict["field"] == field


def test_a_start_without_targets_fails_with_its_stage(tmp_path: Path) -> None:
    with emulated(tmp_path, "--targets", str(tmp_path / "none.json")) as process:
        assert process.child.wait(30) == 1
        assert process.verdict["verdict"] == "Failed"
        assert process.verdict["stage"] == "fetch"
        assert "none.json" in process.verdict["message"]


def test_an_emulated_pod_is_small_and_rests(tmp_path: Path) -> None:
    with emulated(tmp_path, "--emulate-start-seconds", "0") as process:
        process.wait_ready()
        process.stream(max_tokens=50).read()
        pid = process.child.pid
        resident = next(
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line
        )
        assert int(resident.split()[1]) < 60_000

        def cpu_ticks() -> int:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        before = cpu_ticks()
        time.sleep(10)
        assert cpu_ticks() - before <= 2  # 0.2 % of a core


def test_a_port_that_is_taken_fails_the_start_before_an_engine_is_started(tmp_path: Path) -> None:
    """Else the other server would answer the warm-up, and the pod seem ready."""
    (tmp_path / "targets.json").write_text(Targets(classes=(target(),)).to_json())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        given = options(tmp_path, emulation=None, port=other.getsockname()[1])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            assert launcher.run(given) == 1
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def child(code: str) -> tuple[EngineProcess, list[str]]:
    lines: list[str] = []
    return EngineProcess([sys.executable, "-u", "-c", code], env=os.environ, on_line=lines.append), lines


def test_the_engines_output_is_passed_on_and_read(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    engine, lines = child("print('one'); print('two')")
    assert engine.wait() == 0
    assert lines == ["one", "two"]


def test_the_engines_exit_code_is_the_containers() -> None:
    assert child("raise SystemExit(7)")[0].wait() == 7
    assert child("import os; os.kill(os.getpid(), 9)")[0].wait() == 137


def test_the_last_error_is_what_a_person_would_quote() -> None:
    engine, _ = child(
        "print('INFO fine'); print('ValueError: no memory'); print('INFO shutting down'); exit(1)"
    )
    engine.wait()
    assert engine.last_error() == "ValueError: no memory"


def test_sigterm_reaches_the_engine() -> None:
    code = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(3)); print('up'); time.sleep(60)"
    engine, lines = child(code)
    wait_until(lambda: "up" in lines)
    engine.terminate()
    assert engine.wait() == 3


def test_what_the_engine_leaves_behind_is_ended() -> None:
    code = (
        "import subprocess,sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(p.pid); import os; os._exit(0)"
    )
    engine, lines = child(code)
    engine.wait()
    orphan = int(lines[0])
    wait_until(lambda: not running(orphan))


def running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_verdict_fits_what_the_kubelet_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_TERMINATION_LOG", str(tmp_path / "log"))
    assert report(StartFailure("x" * 10_000, stage="weights")) == 1
    assert len((tmp_path / "log").read_bytes()) <= 4096
    assert json.loads((tmp_path / "log").read_text())["stage"] == "weights"
    assert report(Refused("no", field="spec.model.uri")) == 78
    assert json.loads((tmp_path / "log").read_text()) == {
        "verdict": "Refused",
        "field": "spec.model.uri",
        "message": "no",
    }
