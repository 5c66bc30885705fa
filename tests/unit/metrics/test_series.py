"""The names and edges that the operator depends on: each exists where it is exported, and a change shows here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paceline.fleet import names
from paceline.fleet.pod_monitor import pod_monitor
from paceline.metrics import pod_pages, series
from paceline.metrics.page import meaning
from paceline_core import Targets
from paceline_runtime.gate.metrics import TTFT_EDGES_S, Metrics
from paceline_runtime.launch.buckets import histogram_buckets
from tests.unit.fleet.services import EMULATED, SETTINGS, meta, service
from tests.unit.runtime.pod import pod, target

GATE = (
    "paceline_gate_arrivals_total",
    "paceline_gate_client_errors_total",
    "paceline_gate_unserved_total",
    "paceline_gate_held_requests",
    "paceline_gate_in_flight",
    "paceline_gate_time_to_first_token_seconds_bucket",
    "paceline_gate_time_to_first_token_seconds_sum",
)
ENGINE = (
    "paceline_requests_total",
    "paceline_requests_in_flight",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:prompt_tokens_total",
    "vllm:prompt_tokens_cached_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_sum",
    "vllm:request_prompt_tokens_bucket",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_generation_tokens_bucket",
    "vllm:request_generation_tokens_sum",
)


def names_on(page: str) -> set[str]:
    return {re.split(r"[{ ]", line)[0] for line in page.splitlines() if not line.startswith("#")}


def test_the_names_are_pinned() -> None:
    assert GATE[0] == series.GATE_ARRIVALS
    spelled = {value for value in vars(series).values() if isinstance(value, str | tuple)}
    for name in (*GATE, *ENGINE):
        base = re.sub(r"_(bucket|sum)$", "", name)
        assert any(base == one or (isinstance(one, tuple) and one[0] == base) for one in spelled), base


def test_the_gate_exports_what_is_asked_of_it() -> None:
    page = Metrics().text().decode()
    assert set(GATE) <= names_on(page)
    assert all(meaning(name) for name in GATE if not name.endswith("_bucket"))


async def test_the_engine_exports_what_is_asked_of_it(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        _, page = await one.get("/metrics")
    assert set(ENGINE) <= names_on(page)


def test_the_edges_are_pinned() -> None:
    edges = histogram_buckets(Targets(classes=(target(),)), max_prompt_tokens=1024, max_model_tokens=2048)
    assert TTFT_EDGES_S == (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
    first_token = {0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 20, 40, 80, 160, 640}
    token = {0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10, 40}
    assert first_token <= set(edges["time_to_first_token"])
    assert token <= set(edges["inter_token_latency"])
    assert edges["request_tokens"] == [
        *(1.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 768.0),
        *(1024.0, 1536.0, 2048.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pod_label", "label"),
    [
        (names.LABEL_SERVICE, series.SERVICE),
        (names.LABEL_TENSOR_PARALLEL_SIZE, series.TENSOR_PARALLEL_SIZE),
    ],
)
def test_a_pod_monitor_carries_the_labels_over(pod_label: str, label: str) -> None:
    """The Prometheus operator, like Prometheus itself, writes `_` for what a label's name cannot hold."""
    made = pod_monitor(service(EMULATED), meta=meta(), settings=SETTINGS)
    assert pod_label in made["spec"]["podTargetLabels"]
    assert re.sub(r"[^a-zA-Z0-9_]", "_", pod_label) == label


def test_the_pods_are_asked_where_they_listen() -> None:
    assert (pod_pages.ENGINE_PORT, pod_pages.GATE_OPS_PORT) == (names.ENGINE_PORT, names.GATE_OPS_PORT)
