"""Names, labels and edges on the metrics page: others query them, so they do not change by accident."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from paceline_core import Outcome, Targets
from paceline_runtime.launch.buckets import histogram_buckets
from tests.unit.runtime.pod import Pod, pod, target

PACELINE = {
    "paceline_requests_total": {"latency_class", "outcome"},
    "paceline_requests_in_flight": set(),
    "paceline_startup_stage_seconds": {"stage"},
    "paceline_phase": {"phase"},
    "paceline_layout_info": {"tensor_parallel_size", "data_parallel_size"},
    "paceline_emulated": set(),
    "paceline_engine_step_age_seconds": set(),
}

EMULATED = {
    "paceline_emulated_info": {"gpu", "model", "format", "timing", "tensor_parallel_size"},
    "paceline_emulated_kappa": set(),
    "paceline_emulated_step_lag_seconds_bucket": {"le"},
    "paceline_emulated_step_lag_seconds_count": set(),
    "paceline_emulated_step_lag_seconds_sum": set(),
}
"""Of an emulated engine alone."""

VLLM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prompt_tokens_cached_total",
    "vllm:iteration_tokens_total_bucket",
    "vllm:request_prompt_tokens_bucket",
    "vllm:request_generation_tokens_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:cache_config_info",
    "vllm:request_success_total",
    "vllm:admission_rejections_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
}


async def samples(one: Pod) -> dict[str, list[dict[str, str]]]:
    _, page = await one.get("/metrics")
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


async def test_the_names_and_labels_of_our_series(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        found = await samples(one)
        ours = PACELINE | EMULATED
        for name, labels in ours.items():
            assert {frozenset(each) for each in found[name]} == {frozenset(labels)}, name
        assert {name for name in found if name.startswith("paceline")} == ours.keys()


async def test_the_emulated_engine_has_vllms_names(tmp_path: Path) -> None:
    async with pod(tmp_path) as one:
        assert (await samples(one)).keys() >= VLLM


async def test_every_outcome_of_every_class_begins_at_zero(tmp_path: Path) -> None:
    """The rate of a counter that first appears at 1 misses its first request."""
    targets = Targets(classes=(target(name="short", up_to=100), target(name="long")))
    async with pod(tmp_path, targets=targets) as one:
        found = {
            (each["latency_class"], each["outcome"])
            for each in (await samples(one))["paceline_requests_total"]
        }
        assert found == {
            (name, outcome.value) for name in ("short", "long", "unknown") for outcome in Outcome
        }


async def test_exactly_one_phase_is_1(tmp_path: Path) -> None:
    async with pod(tmp_path, open_now=False) as one:
        for phase in ("loading", "serving", "drained"):
            _, page = await one.get("/metrics")
            assert f'paceline_phase{{phase="{phase}"}} 1.0' in page
            assert page.count('"} 1.0\n') >= 1
            assert (
                sum(line.endswith(" 1.0") for line in page.splitlines() if line.startswith("paceline_phase"))
                == 1
            )
            if phase == "loading":
                one.serving.open({"ready": 1}, canary=None)
            else:
                await one.drain()
                await one.serving.lifecycle.drained()


def test_there_is_an_edge_at_each_target() -> None:
    targets = Targets(
        classes=(
            target(name="short", up_to=8192, ttft_ms=437, tpot_ms=33),
            target(name="long", ttft_ms=2100, tpot_ms=77),
        )
    )
    edges = histogram_buckets(targets, max_prompt_tokens=32_000, max_model_tokens=40_000)
    assert {0.437, 2.1} <= set(edges["time_to_first_token"])
    assert {0.033, 0.077} <= set(edges["inter_token_latency"])
    assert {8192, 32_000} <= set(edges["request_tokens"])
    assert edges["request_tokens"][-1] == 40_000
    for family in edges.values():
        assert family == sorted(set(family))
        assert family[0] > 0


async def test_the_edges_are_those_on_the_page(tmp_path: Path) -> None:
    targets = Targets(classes=(target(ttft_ms=437, tpot_ms=33),))
    async with pod(tmp_path, targets=targets) as one:
        found = await samples(one)
        assert "0.437" in {each["le"] for each in found["vllm:time_to_first_token_seconds_bucket"]}
        assert "0.033" in {each["le"] for each in found["vllm:inter_token_latency_seconds_bucket"]}
