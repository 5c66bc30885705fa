"""The launcher as a real process beside a stand-in for vLLM's server: another layout, the way back, and its own port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paceline_core import Canary, Reference, Targets
from paceline_runtime.launch.failure import EXIT_REFUSED
from tests.unit.runtime.pod import target
from tests.unit.runtime.test_processes import Process, free_port, is_ready_in, layout_of, wait_until

ROOT = Path(__file__).parents[3]
CODE = """
from paceline_runtime.launch import launcher
launcher.MODULE = "tests.unit.runtime.stand_in_engine"
from paceline_runtime.cli import main
main()
"""


class Launcher(Process):
    """`paceline-runtime serve` with two devices."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self.port, self.live_port = free_port(), free_port()
        (folder / "targets.json").write_text(Targets(classes=(target(),)).to_json())
        arguments = [
            *("serve", "--model-uri", "s3://bucket/model", "--served-model-name", "m"),
            *("--tensor-parallel-size", "2", "--max-model-len", "2048", "--kv-cache-bytes", str(2**28)),
            *("--max-prompt-tokens", "2000", "--max-output-tokens", "500", "--max-request-seconds", "60"),
            *("--device", "cpu", "--service", "demo", "--targets", str(folder / "targets.json")),
            *("--canary-reference", str(folder / "canary.json")),
            *("--host", "127.0.0.1", "--port", str(self.port), "--live-port", str(self.live_port)),
            *("--admin-socket", str(folder / "admin.sock"), "--layout-file", str(folder / "layout")),
        ]
        env = {
            **os.environ,
            **environ,
            "PACELINE_TERMINATION_LOG": str(folder / "termination"),
            "PYTHONPATH": f"{ROOT / 'runtime'}:{ROOT}",
        }
        with (folder / "log").open("wb") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-c", CODE, *arguments], stdout=log, stderr=log, env=env
            )

    def live(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.live_port}/live", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def launched(folder: Path, **environ: str) -> Iterator[Launcher]:
    launcher = Launcher(folder, **environ)
    try:
        yield launcher
    finally:
        launcher.child.send_signal(signal.SIGTERM)
        try:
            launcher.child.wait(20)
        except subprocess.TimeoutExpired:
            launcher.child.kill()


def test_the_engine_starts_anew_in_another_layout_within_the_same_process(tmp_path: Path) -> None:
    with launched(tmp_path) as one:
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        stream = one.stream(max_tokens=300)
        stream.readline()
        (tmp_path / "layout").write_text("tp=1,dp=2,change=1")
        assert stream.read().endswith(b"data: [DONE]\n\n")
        wait_until(lambda: one.status("/ready") is None)
        wait_until(one.live)
        wait_until(lambda: is_ready_in(one, (1, 2)), timeout_s=60)
        assert one.live()
        assert "--data-parallel-size 2" in one.log
        one.child.send_signal(signal.SIGTERM)
        one.child.wait(30)


def test_a_layout_in_which_the_engine_does_not_start_leads_back(tmp_path: Path) -> None:
    with launched(tmp_path, FAIL_AT_SIZE="1") as one:
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        (tmp_path / "layout").write_text("tp=1,dp=2,change=1")
        wait_until(lambda: "event=layout_refused" in one.log, timeout_s=60)
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        refused = one.json("/paceline/info")["refusedLayout"]
        assert refused["order"] == "tp=1,dp=2,change=1"
        assert "out of memory" in refused["message"]


def test_the_only_layout_in_which_the_engine_does_not_start_ends_the_container(tmp_path: Path) -> None:
    with launched(tmp_path, FAIL_AT_SIZE="2") as one:
        assert one.child.wait(60) == 1
        assert json.loads((tmp_path / "termination").read_text())["verdict"] == "Failed"


def keep(folder: Path, told: Any) -> None:
    """As the operator does what a pod told."""
    reference = Reference(canary=Canary.from_json(told), expected_token_s={}, margin=0.5)
    (folder / "canary.json").write_text(json.dumps(reference.to_json()))


def test_an_engine_that_answers_as_those_before_it_serves(tmp_path: Path) -> None:
    with launched(tmp_path) as one:
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        told = one.json("/paceline/info")["canary"]
        canary = Canary.from_json(told)
        assert canary.log_probabilities == (-1.5, -2.5) * 3
        assert canary.speed is not None
        assert canary.speed.tensor_parallel_size == 2
        assert canary.speed.token_s > 0.004, "the stand-in's step is 5 ms"
    keep(tmp_path, told)
    with launched(tmp_path) as one:
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        assert one.json("/paceline/info")["canary"]["logProbabilities"] == told["logProbabilities"]


def test_an_engine_that_answers_otherwise_is_never_ready(tmp_path: Path) -> None:
    with launched(tmp_path) as one:
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        keep(tmp_path, one.json("/paceline/info")["canary"])
    with launched(tmp_path, WRONG_AT_SIZE="2") as one:
        assert one.child.wait(60) == EXIT_REFUSED
        verdict = json.loads((tmp_path / "termination").read_text())
        assert verdict["verdict"] == "Refused"
        assert verdict["field"] == "spec.transition.canary"
        assert "4.00 nats" in verdict["message"]


def test_a_layout_in_which_the_engine_answers_otherwise_leads_back(tmp_path: Path) -> None:
    with launched(tmp_path, WRONG_AT_SIZE="1") as one:
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        keep(tmp_path, one.json("/paceline/info")["canary"])
        (tmp_path / "layout").write_text("tp=1,dp=2,change=1")
        wait_until(lambda: "event=layout_refused" in one.log, timeout_s=60)
        wait_until(lambda: is_ready_in(one, (2, 1)), timeout_s=60)
        assert "nats" in one.json("/paceline/info")["refusedLayout"]["message"]


def test_an_order_that_comes_while_the_engine_starts_is_taken_at_once(tmp_path: Path) -> None:
    with launched(tmp_path) as one:
        wait_until(lambda: "event=engine_start" in one.log, timeout_s=60)
        (tmp_path / "layout").write_text("tp=1,dp=2,change=1")
        wait_until(lambda: is_ready_in(one, (1, 2)), timeout_s=60)
        assert layout_of(one) == (1, 2)
