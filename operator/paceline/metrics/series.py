"""The names of labels and metrics that the operator depends on: the one place where they are spelled.

The labels are those that a PodMonitor with `podTargetLabels` gives, and a plain scrape configuration with a
`labelmap` of the pods' labels. Where vLLM renamed a metric both names stand here, the newer first.
"""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = "namespace"
POD: Final = "pod"
SERVICE: Final = "paceline_dev_service"
TENSOR_PARALLEL_SIZE: Final = "paceline_dev_tensor_parallel_size"

GATE_ARRIVALS: Final = "paceline_gate_arrivals_total"
GATE_CLIENT_ERRORS: Final = "paceline_gate_client_errors_total"
GATE_UNSERVED: Final = "paceline_gate_unserved_total"
GATE_HELD: Final = "paceline_gate_held_requests"
GATE_IN_FLIGHT: Final = "paceline_gate_in_flight"
GATE_TTFT: Final = "paceline_gate_time_to_first_token_seconds"

REQUESTS: Final = "paceline_requests_total"
REQUESTS_IN_FLIGHT: Final = "paceline_requests_in_flight"

RUNNING: Final = "vllm:num_requests_running"
WAITING: Final = "vllm:num_requests_waiting"
CACHE_CONFIG: Final = "vllm:cache_config_info"
OUTPUT_TOKENS: Final = "vllm:generation_tokens_total"
PROMPT_TOKENS: Final = "vllm:prompt_tokens_total"
PREEMPTIONS: Final = "vllm:num_preemptions_total"

KV_CACHE_USAGE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
CACHED_PROMPT_TOKENS: Final = (
    "vllm:prompt_tokens_cached_total",
    "vllm:prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_hits_total",
)

TTFT: Final = ("vllm:time_to_first_token_seconds",)
ITL: Final = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
"""The older name is the same thing, one entry a token, in spite of what it says."""

TPOT: Final = ("vllm:request_time_per_output_token_seconds",)
"""One entry a request, its mean. Versions of vLLM that lack it have nothing in its place: the mean of ITL
weighs long answers more."""

PROMPT_LENGTH: Final = ("vllm:request_prompt_tokens",)
OUTPUT_LENGTH: Final = ("vllm:request_generation_tokens",)
