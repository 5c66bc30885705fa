"""`paceline simulate` and `paceline benchmark` as a person calls them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from paceline.cli import main

SMALL = ["--synthetic", "steady:rate=2,hours=0.1", "--tp", "4", "--max-gpus", "8"]

KEYS = {
    "gpu_hours", "requests", "failed", "attainment", "attainment_by_prompt_decile", "window_attainment",
    "worst_window_attainment", "ttft_s", "tpot_s", "shape_changes", "reversals_within_10_min", "tp_switches",
    "time_to_recover_s", "oracle_gpu_hours", "regret", "decisions_per_second", "wall_s",
}  # fmt: skip


def _simulate(*args: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *args])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))


def test_a_summary_holds_exactly_what_was_promised(tmp_path: Path) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    done = _simulate(*SMALL, "--json", str(out), "--plot", str(plot), "--gpu", "h200_sxm")
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert set(found) == KEYS
    assert found["requests"] > 500
    assert found["failed"] == 0
    assert len(found["attainment_by_prompt_decile"]) == 10
    assert set(found["ttft_s"]) == {"p50", "p95", "p99"}
    assert found["regret"] == pytest.approx(found["gpu_hours"] / found["oracle_gpu_hours"])
    assert found["oracle_gpu_hours"] <= found["gpu_hours"] * 1.001
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "(simulated)" in done.output


@pytest.mark.parametrize("policy", ["static-peak", "static-best", "keda", "dynamo-sla", "paceline-fixed-tp"])
def test_every_kind_of_policy_runs(policy: str, tmp_path: Path) -> None:
    done = _simulate(*SMALL, "--policy", policy, "--no-oracle", "--json", str(tmp_path / "o.json"))
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1].startswith(f"{policy}: ")


def test_the_same_seed_gives_the_same_figures() -> None:
    found = []
    for _ in range(2):
        done = CliRunner().invoke(main, ["simulate", *SMALL, "--policy", "knative", "--no-oracle"])
        body: dict[str, Any] = json.loads(done.stdout)
        for timed in ("wall_s", "decisions_per_second"):
            del body[timed]
        found.append(body)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--policy", "magic"], "--policy: 'magic' is not known: write one of aibrix-apa"),
        (["--model", "llama-9"], "--model: 'llama-9' is not known: write one of llama-3.1-8b"),
        (["--format", "int3"], "--format: 'int3' is not known"),
        (["--gpu", "tpu"], "--gpu: 'tpu' is not known: write one of h100"),
        (["--tp", "3"], "--tp: '3' is no tensor-parallel size"),
        (["--tp", "8", "--max-gpus", "4"], "--tp: none of 8 can run"),
        (["--slo", "ttft=1s"], "--slo: tpot and objective missing"),
        (["--start-time", "2"], "--start-time: '2' is no duration"),
        (["--synthetic", "waves"], "--synthetic: 'waves' is no generator"),
        (["--synthetic", "steady:depth=2"], "--synthetic: steady has no depth"),
        (["--scale", "0"], "--scale: 0.0: write a number above 0"),
        (["--rate-noise", "4"], "--rate-noise: it is added to a rate: write it with --rate"),
        (["--from-hours", "-1"], "--from-hours: -1: write at least 0"),
        (["--from-hours", "3"], "--from-hours: 3: the traffic is 0.1 hours long: write less"),
        (["--hours", "0"], "--hours: 0: write a number above 0"),
        (
            ["--from-hours", "0.05", "--hours", "0.06"],
            "--hours: 0.06: from hour 0.05 on the traffic lasts 0.05 hours: write at most that",
        ),
    ],
)
def test_a_bad_argument_is_named_with_what_to_write(args: list[str], message: str) -> None:
    done = _simulate(*SMALL, "--no-oracle", *args)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_two_sources_of_traffic_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n")
    done = _simulate("--requests", str(path), "--synthetic", "steady")
    assert "--synthetic: --requests is given already" in done.output


def test_traffic_comes_from_files(tmp_path: Path) -> None:
    requests, rate = tmp_path / "requests.csv", tmp_path / "rate.csv"
    rows = [f"{i * 0.7},{200 + i},{50}" for i in range(300)]
    requests.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n")
    rate.write_text("t_s,requests_per_s\n0,1\n120,2\n")
    for args in (["--requests", str(requests)], ["--rate", str(rate), "--lengths", str(requests)]):
        done = CliRunner().invoke(main, ["simulate", *args, "--tp", "4", "--max-gpus", "8", "--no-oracle"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["requests"] >= 200


def test_a_window_of_a_long_trace_is_run_alone(tmp_path: Path) -> None:
    rate = tmp_path / "rate.csv"
    rate.write_text("t_s,requests_per_s\n0,9\n3600,1\n7200,1\n")
    shape = ["--tp", "4", "--max-gpus", "8", "--policy", "static-best"]
    done = _simulate(
        "--rate", str(rate), "--from-hours", "1", "--hours", "0.5", "--scale", "2", *shape, "--no-oracle"
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["requests"] == pytest.approx(3600, abs=200)


@pytest.mark.parametrize("command", ["simulate", "benchmark"])
def test_without_the_extra_the_command_says_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.startswith("paceline.simulator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    suite = tmp_path / "suite.yaml"
    suite.write_text("")
    args = [] if command == "simulate" else ["--suite", str(suite), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [command, *args])
    assert done.exit_code == 1
    assert "numba is not installed" in done.output
    assert "pip install 'paceline[simulator]'" in done.output
