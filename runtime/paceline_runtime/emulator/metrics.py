"""The series of vLLM 0.32 that Paceline and its users read, under the same names, labels and units.

Only those that the emulated engine can fill truthfully. A test compares names and labels with a page that
vLLM wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

_LABELS = ("model_name", "engine")
FINISH_REASONS = ("stop", "length", "abort", "error")
BLOCK_TOKENS = 16
"""vLLM's default size of a block of the KV cache."""

REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")


class EngineMetrics:
    def __init__(
        self,
        *,
        model: str,
        buckets: Mapping[str, Sequence[float]],
        kv_cache_tokens: int,
        registry: CollectorRegistry,
    ) -> None:
        """`buckets`: edges by the family names of vLLM's --custom-histogram-buckets."""
        labels = {"model_name": model, "engine": "0"}

        def gauge(name: str, says: str) -> Gauge:
            return Gauge(f"vllm:{name}", says, _LABELS, registry=registry).labels(**labels)

        def counter(name: str, says: str) -> Counter:
            return Counter(f"vllm:{name}", says, _LABELS, registry=registry).labels(**labels)

        def histogram(name: str, says: str, family: str) -> Histogram:
            edges = buckets[family]
            return Histogram(f"vllm:{name}", says, _LABELS, registry=registry, buckets=edges).labels(**labels)

        self.running = gauge("num_requests_running", "Sequences in the batch.")
        self.waiting = gauge("num_requests_waiting", "Sequences that wait to join.")
        self.kv_cache_usage = gauge("kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.")
        Gauge(
            "vllm:cache_config_info",
            "Blocks of the KV cache, and the tokens that fit in one.",
            ("engine", "block_size", "num_gpu_blocks"),
            registry=registry,
        ).labels("0", str(BLOCK_TOKENS), str(kv_cache_tokens // BLOCK_TOKENS)).set(1)
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens processed.")
        self.cached_prompt_tokens = counter(
            "prompt_tokens_cached", "Prompt tokens that the prefix cache had: none here."
        )
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        self.preemptions = counter("num_preemptions", "Preemptions: none happen here.")
        self.time_to_first_token = histogram(
            "time_to_first_token_seconds", "Arrival to first token.", "time_to_first_token"
        )
        self.inter_token_latency = histogram(
            "inter_token_latency_seconds", "Between two tokens of a sequence.", "inter_token_latency"
        )
        self.time_per_output_token = histogram(
            "request_time_per_output_token_seconds", "Mean time per output token.", "inter_token_latency"
        )
        self.end_to_end = histogram(
            "e2e_request_latency_seconds", "Arrival to last token.", "request_latency"
        )
        self.prompt_length = histogram(
            "request_prompt_tokens", "Prompt tokens of each finished request.", "request_tokens"
        )
        self.output_length = histogram(
            "request_generation_tokens", "Output tokens of each finished request.", "request_tokens"
        )
        success = Counter(
            "vllm:request_success",
            "Requests by how they finished.",
            (*_LABELS, "finished_reason"),
            registry=registry,
        )
        self.success = {reason: success.labels(**labels, finished_reason=reason) for reason in FINISH_REASONS}
        rejections = Counter(
            "vllm:admission_rejections",
            "Requests refused by a queue limit.",
            ("model_name", "reason"),
            registry=registry,
        )
        self.rejections = {
            reason: rejections.labels(model_name=model, reason=reason) for reason in REJECTIONS
        }
