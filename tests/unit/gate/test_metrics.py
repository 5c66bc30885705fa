"""Names and edges that dashboards and alerts are built on."""

from __future__ import annotations

import json
from pathlib import Path

from paceline_runtime.gate.metrics import TTFT_EDGES_S, Metrics, TargetsFile

TTFT = "paceline_gate_time_to_first_token_seconds"


def edges(metrics: Metrics, name: str) -> list[str]:
    lines = metrics.text().decode().splitlines()
    return [line.split('"')[1] for line in lines if line.startswith(f"{name}_bucket")]


def targets(*thresholds_ms: int) -> str:
    *bounded, last = (
        {"name": f"c{ms}", "timeToFirstTokenMilliseconds": ms, "timePerOutputTokenMilliseconds": 40}
        for ms in thresholds_ms
    )
    return json.dumps({"latencyClasses": [*({**one, "maxPromptTokens": 100} for one in bounded), last]})


def test_the_series_are_these() -> None:
    metrics = Metrics()
    metrics.requests.labels("200").inc()
    names = {line.split()[2] for line in metrics.text().decode().splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if not name.endswith("_created")} == {
        "paceline_gate_requests_total",
        "paceline_gate_arrivals_total",
        "paceline_gate_client_errors_total",
        "paceline_gate_unserved_total",
        "paceline_gate_requests_cut_total",
        "paceline_gate_requests_resent_total",
        "paceline_gate_workers_evicted_total",
        "paceline_gate_held_requests",
        "paceline_gate_hold_seconds",
        "paceline_gate_in_flight",
        "paceline_gate_router_divergence_seconds",
        TTFT,
    }


def test_what_the_operator_counts_begins_at_zero() -> None:
    """The rate of a counter that first appears at 1 misses its first request."""
    page = Metrics().text().decode().splitlines()
    reasons = ("hold_full", "no_engine", "body_too_late", "engine_lost", "router_error")
    assert {"paceline_gate_arrivals_total 0.0", "paceline_gate_client_errors_total 0.0"} <= set(page)
    assert {f'paceline_gate_unserved_total{{reason="{one}"}} 0.0' for one in reasons} <= set(page)


def test_an_unknown_divergence_is_not_zero() -> None:
    assert b"paceline_gate_router_divergence_seconds NaN" in Metrics().text()


def test_the_histogram_has_an_edge_at_each_target(tmp_path: Path) -> None:
    metrics = Metrics()
    path = tmp_path / "targets.json"
    file = TargetsFile(path, metrics=metrics)
    file.reread()
    assert edges(metrics, TTFT) == [*map(str, TTFT_EDGES_S), "+Inf"]
    path.write_text(targets(350, 1750))
    file.reread()
    assert {"0.35", "1.75"} <= set(edges(metrics, TTFT))


def test_counts_outlive_a_reread_that_changes_no_edge(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text(targets(350))
    metrics = Metrics()
    file = TargetsFile(path, metrics=metrics)
    file.reread()
    metrics.observe_ttft(0.2)
    path.write_text(targets(350) + "\n")
    file.reread()
    assert f"{TTFT}_count 1.0".encode() in metrics.text()


def test_a_broken_file_leaves_the_edges_alone(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text(targets(350))
    metrics = Metrics()
    file = TargetsFile(path, metrics=metrics)
    file.reread()
    for broken in ("{", "[]", '{"latencyClasses": [{}]}', targets(-1)):
        path.write_text(broken)
        file.reread()
        assert "0.35" in edges(metrics, TTFT)
