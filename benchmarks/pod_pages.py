"""What Prometheus would scrape from a pod of a service, made up: the series that the operator reads, under the names,
labels and bucket edges of our gate and runtime. Used by the benchmarks that have no pods.

The labels of the pod stand in the page, so it is scraped with `honor_labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline_core import LatencyTarget, Targets
from paceline_runtime.gate.metrics import TTFT_EDGES_S
from paceline_runtime.launch.buckets import histogram_buckets

TARGETS = Targets(
    classes=(
        LatencyTarget(
            name="all", max_prompt_tokens=None, ttft_ms=500, ttft_per_thousand_prompt_tokens_ms=0, tpot_ms=40
        ),
    )
)
OUTCOMES = (
    *("good", "late_ttft", "late_tpot", "late_both", "failed", "rejected"),
    *("aborted_early", "aborted_late", "client_error"),
)
UNSERVED = ("hold_full", "no_engine", "body_too_late", "engine_lost", "router_error")
PROMPT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 900, 200, 250
_EDGES = histogram_buckets(TARGETS, max_prompt_tokens=32_000, max_model_tokens=49_152)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast the requests are answered, in the mean."""

    ttft_s: float
    tpot_s: float
    good_share: float


def labels(*, namespace: str, service: str, pod: str, tensor_parallel_size: int | None = None) -> str:
    """Those that a PodMonitor gives. Gates have no size."""
    found = f'namespace="{namespace}",paceline_dev_service="{service}",pod="{pod}"'
    if tensor_parallel_size is None:
        return found
    return f'{found},paceline_dev_tensor_parallel_size="{tensor_parallel_size}"'


def engine_page(
    lines: list[str], at: str, *, count: float, running: float, waiting: float, speed: Speed
) -> None:
    """An engine that has served `count` requests."""
    lines.append(f"up{{{at}}} 1")
    for outcome in OUTCOMES:
        share = {"good": speed.good_share, "late_ttft": 1 - speed.good_share}.get(outcome, 0.0)
        lines.append(
            f'paceline_requests_total{{{at},latency_class="all",outcome="{outcome}"}} {count * share}'
        )
    lines.append(f"paceline_requests_in_flight{{{at}}} {running + waiting}")
    own = f'{at},engine="0",model_name="m"'
    for name, value in (
        ("num_requests_running", running),
        ("num_requests_waiting", waiting),
        ("kv_cache_usage_perc", 0.4),
        ("prompt_tokens_total", count * PROMPT_TOKENS),
        ("prompt_tokens_cached_total", count * CACHED_TOKENS),
        ("generation_tokens_total", count * OUTPUT_TOKENS),
        ("num_preemptions_total", 0.0),
    ):
        lines.append(f"vllm:{name}{{{own}}} {value}")
    lines.append(f'vllm:cache_config_info{{{at},engine="0",block_size="16",num_gpu_blocks="20000"}} 1')
    for name, family, mean, entries in (
        ("time_to_first_token_seconds", "time_to_first_token", speed.ttft_s, count),
        ("inter_token_latency_seconds", "inter_token_latency", speed.tpot_s, count * OUTPUT_TOKENS),
        ("request_time_per_output_token_seconds", "inter_token_latency", speed.tpot_s, count),
        ("request_prompt_tokens", "request_tokens", float(PROMPT_TOKENS), count),
        ("request_generation_tokens", "request_tokens", float(OUTPUT_TOKENS), count),
    ):
        _histogram(lines, f"vllm:{name}", own, _EDGES[family], mean=mean, entries=entries)


def gate_page(lines: list[str], at: str, *, count: float, in_flight: float, speed: Speed) -> None:
    """A gate at which `count` requests have arrived."""
    lines.append(f"up{{{at}}} 1")
    lines.append(f"paceline_gate_arrivals_total{{{at}}} {count}")
    lines.append(f"paceline_gate_client_errors_total{{{at}}} 0")
    lines.extend(f'paceline_gate_unserved_total{{{at},reason="{reason}"}} 0' for reason in UNSERVED)
    lines.append(f"paceline_gate_held_requests{{{at}}} 0")
    lines.append(f"paceline_gate_in_flight{{{at}}} {in_flight}")
    name = "paceline_gate_time_to_first_token_seconds"
    _histogram(lines, name, at, TTFT_EDGES_S, mean=speed.ttft_s, entries=count)


def _histogram(
    lines: list[str], name: str, at: str, edges: Sequence[float], *, mean: float, entries: float
) -> None:
    for edge in (*map(float, edges), float("inf")):
        share = 1 - 2.0 ** (-edge / mean)
        label = "+Inf" if edge == float("inf") else str(edge)
        lines.append(f'{name}_bucket{{{at},le="{label}"}} {entries * share}')
    lines.append(f"{name}_sum{{{at}}} {entries * mean}")
    lines.append(f"{name}_count{{{at}}} {entries}")
