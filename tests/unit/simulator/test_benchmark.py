from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from paceline.cli import main
from paceline.simulator.benchmark.suite import UnreadableSuite, read_suite
from paceline.simulator.policies.named import NAMES

SUITES = Path(__file__).parents[3] / "benchmarks" / "suites"

TINY = """
name: tiny
policies: [paceline, static-best, hpa-concurrency]
trials: 2
frontier-points: 2
training:
  - name: t
    service: &service {model: llama-3.1-70b, format: fp8, gpu: h200, tp: "4", max-gpus: 8,
                       slo: "ttft=1s,tpot=50ms,objective=95"}
    traffic: {synthetic: "steady:rate=2,hours=0.1"}
cells:
  - {name: easy, trained-on: t, traffic: {synthetic: "ramp:low=1,high=2,hours=0.2"},
     faults: {crash-at: [200s], metrics-gone: [[300s, 400s]]}}
  - {name: shipped, trained-on: t, policies: [paceline], frontier-points: 0, exact-latencies: true,
     truth-overhead: 3ms, cached-share: 0.3, traffic: {synthetic: "steady:rate=2,hours=0.1"}}
  - {name: impossible, trained-on: t, traffic: {synthetic: "steady:rate=2,hours=0.1"},
     service: {model: llama-3.1-70b, format: fp8, gpu: h200, tp: "4", max-gpus: 8,
               slo: "ttft=1ms,tpot=1ms,objective=95"}}
"""


def _benchmark(suite: Path, out: Path) -> str:
    done = CliRunner().invoke(main, ["benchmark", "--suite", str(suite), "--out", str(out), "--workers", "1"])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_benchmark_goes_on_where_it_was_and_its_report_says_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    suite, out = tmp_path / "tiny.yaml", tmp_path / "out"
    suite.write_text(TINY)
    _benchmark(suite, out)
    report = (out / "report.md").read_text()
    assert report.startswith("# Simulated: ")
    assert "Dropped: impossible" in report
    assert (out / "pictures" / "easy-frontiers.png").is_file()
    rows = list(csv.DictReader((out / "runs.csv").open()))
    assert {row["policy"] for row in rows} == {"paceline", "static-best", "hpa-concurrency"}
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert not list((out / "runs" / "shipped").glob("hpa*"))
    assert {row["kind"] for row in rows if row["cell"] == "shipped"} == {"shipped"}
    gone = out / "runs" / "easy" / "hpa-concurrency.json"
    before = json.loads(gone.read_text())
    gone.unlink()
    said = _benchmark(suite, out)
    assert "1/1  runs easy hpa-concurrency" in said
    assert {path for path in made if path.stat().st_mtime_ns != made[path]} == {gone}
    assert json.loads(gone.read_text())["shipped"]["gpu_hours"] == before["shipped"]["gpu_hours"]


@pytest.mark.parametrize("name", ["smoke", "quick", "full"])
def test_the_shipped_suites_can_be_read(name: str) -> None:
    suite = read_suite(SUITES / f"{name}.yaml")
    if name != "smoke":
        assert set(suite.policies) == set(NAMES)
        assert suite.frontier_points == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("policies: [magic]", "magic not known"),
        ("trials: 0", "trials"),
        ("wishes: 3", "wishes"),
    ],
)
def test_a_wrong_suite_is_named_with_its_field(tmp_path: Path, wrong: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    lines = [line for line in TINY.splitlines() if not line.startswith(wrong.split(":")[0])]
    path.write_text("\n".join([wrong, *lines]))
    with pytest.raises(UnreadableSuite, match=rf"wrong.yaml: .*{message}"):
        read_suite(path)
