"""The series of vLLM 0.32 that Paceline and its users read, under the same names, labels and units, and what
an emulated engine says of itself.

Only those that the emulated engine can fill truthfully. A test compares names and labels with a page that
vLLM wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from paceline_core.batch import Step
from paceline_runtime.emulator.engine_request import EngineRequest

disable_created_metrics()  # type: ignore[no-untyped-call]

_LABELS = ("model_name", "engine")
FINISH_REASONS = ("stop", "length", "abort", "error")
REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")

_STEP_TOKENS = tuple(2**power for power in range(15) if power not in (1, 2))
"""Edges of vllm:iteration_tokens_total in vLLM, which has no flag of ours for them."""

_LAG_S = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)


class EngineMetrics:
    """Of the whole server. `rank` gives what one data-parallel rank fills."""

    def __init__(
        self,
        *,
        model: str,
        buckets: Mapping[str, Sequence[float]],
        cache_config: Mapping[str, str],
        emulated: Mapping[str, str],
        registry: CollectorRegistry,
        ranks: int = 1,
    ) -> None:
        """`buckets`: edges by the family names of vLLM's --custom-histogram-buckets. `emulated`: what is
        emulated, as labels."""

        def info(name: str, says: str, *rows: Mapping[str, str]) -> None:
            family = Gauge(name, says, tuple(rows[0]), registry=registry)
            for row in rows:
                family.labels(**row).set(1)

        numbers = [str(number) for number in range(ranks)]
        info("vllm:cache_config_info", "The KV cache.", *({**cache_config, "engine": one} for one in numbers))
        rejections = Counter(
            "vllm:admission_rejections",
            "Requests refused by a queue limit.",
            ("model_name", "reason"),
            registry=registry,
        )
        self._rejections = {
            reason: rejections.labels(model_name=model, reason=reason) for reason in REJECTIONS
        }
        info("paceline_emulated_info", "What is emulated.", emulated)
        self._kappa = Gauge(
            "paceline_emulated_kappa", "What scales the GPU's part of each step now.", registry=registry
        )
        self._step_lag = Histogram(
            "paceline_emulated_step_lag_seconds",
            "How far from the moment that its timing says each step ended.",
            registry=registry,
            buckets=_LAG_S,
        )
        families = _Families(buckets=buckets, registry=registry)
        self.ranks = tuple(RankMetrics(families, model=model, engine=one) for one in numbers)

    def rejected(self, reason: str) -> None:
        self._rejections[reason].inc()

    def lagged(self, lag_s: float) -> None:
        self._step_lag.observe(lag_s)

    def now(self, *, kappa: float) -> None:
        """Just before the page is written."""
        self._kappa.set(kappa)


class _Families:
    def __init__(self, *, buckets: Mapping[str, Sequence[float]], registry: CollectorRegistry) -> None:
        def gauge(name: str, says: str) -> Gauge:
            return Gauge(f"vllm:{name}", says, _LABELS, registry=registry)

        def counter(name: str, says: str, *more: str) -> Counter:
            return Counter(f"vllm:{name}", says, (*_LABELS, *more), registry=registry)

        def histogram(name: str, says: str, edges: Sequence[float]) -> Histogram:
            return Histogram(f"vllm:{name}", says, _LABELS, registry=registry, buckets=edges)

        self.running = gauge("num_requests_running", "Sequences in the batch.")
        self.waiting = gauge("num_requests_waiting", "Sequences that wait to join.")
        self.kv_cache_usage = gauge("kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.")
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens processed.")
        self.cached_tokens = counter("prompt_tokens_cached", "Prompt tokens that the prefix cache had.")
        self.prefix_queries = counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
        self.prefix_hits = counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        self.preemptions = counter("num_preemptions", "Sequences that lost their place in the KV cache.")
        self.step_tokens = histogram("iteration_tokens_total", "Tokens of a step.", _STEP_TOKENS)
        self.time_to_first_token = histogram(
            "time_to_first_token_seconds", "Arrival to first token.", buckets["time_to_first_token"]
        )
        self.inter_token_latency = histogram(
            "inter_token_latency_seconds", "Between two tokens of a sequence.", buckets["inter_token_latency"]
        )
        self.time_per_output_token = histogram(
            "request_time_per_output_token_seconds",
            "Mean time per output token.",
            buckets["inter_token_latency"],
        )
        self.end_to_end = histogram(
            "e2e_request_latency_seconds", "Arrival to last token.", buckets["request_latency"]
        )
        self.queue_time = histogram(
            "request_queue_time_seconds", "Arrival to the first step.", buckets["request_latency"]
        )
        self.prompt_length = histogram(
            "request_prompt_tokens", "Prompt tokens of each finished request.", buckets["request_tokens"]
        )
        self.output_length = histogram(
            "request_generation_tokens", "Output tokens of each finished request.", buckets["request_tokens"]
        )
        self.success = counter("request_success", "Requests by how they finished.", "finished_reason")


class RankMetrics:
    """What one engine fills: the label `engine` is its number."""

    def __init__(self, families: _Families, *, model: str, engine: str) -> None:
        labels = {"model_name": model, "engine": engine}
        self._running = families.running.labels(**labels)
        self._waiting = families.waiting.labels(**labels)
        self._kv_cache_usage = families.kv_cache_usage.labels(**labels)
        self._prompt_tokens = families.prompt_tokens.labels(**labels)
        self._cached_tokens = families.cached_tokens.labels(**labels)
        self._prefix_queries = families.prefix_queries.labels(**labels)
        self._prefix_hits = families.prefix_hits.labels(**labels)
        self._generation_tokens = families.generation_tokens.labels(**labels)
        self._preemptions = families.preemptions.labels(**labels)
        self._step_tokens = families.step_tokens.labels(**labels)
        self._time_to_first_token = families.time_to_first_token.labels(**labels)
        self._inter_token_latency = families.inter_token_latency.labels(**labels)
        self._time_per_output_token = families.time_per_output_token.labels(**labels)
        self._end_to_end = families.end_to_end.labels(**labels)
        self._queue_time = families.queue_time.labels(**labels)
        self._prompt_length = families.prompt_length.labels(**labels)
        self._output_length = families.output_length.labels(**labels)
        self._success = {
            reason: families.success.labels(**labels, finished_reason=reason) for reason in FINISH_REASONS
        }

    def looked_up(self, request: EngineRequest, *, cached_tokens: int) -> None:
        """A prompt met the prefix cache."""
        self._prefix_queries.inc(request.prompt_tokens)
        self._prefix_hits.inc(cached_tokens)
        self._cached_tokens.inc(cached_tokens)

    def stepped(self, step: Step, *, produced: int) -> None:
        self._step_tokens.observe(step.tokens)
        self._generation_tokens.inc(produced)
        self._preemptions.inc(len(step.preempted))

    def produced(self, request: EngineRequest, *, now_s: float) -> None:
        """A token; the times of the request are those before it."""
        if request.last_token_s is None:
            self._prompt_tokens.inc(request.prompt_tokens)
            self._time_to_first_token.observe(now_s - request.arrived_s)
        else:
            self._inter_token_latency.observe(now_s - request.last_token_s)

    def finished(self, request: EngineRequest, *, now_s: float) -> None:
        self._success[request.finish_reason].inc()
        self._end_to_end.observe(now_s - request.arrived_s)
        self._prompt_length.observe(request.prompt_tokens)
        self._output_length.observe(request.output_tokens)
        if request.scheduled_s is not None:
            self._queue_time.observe(request.scheduled_s - request.arrived_s)
        if request.output_tokens > 1 and request.first_token_s is not None:
            self._time_per_output_token.observe((now_s - request.first_token_s) / (request.output_tokens - 1))

    def aborted(self) -> None:
        self._success["abort"].inc()

    def now(self, *, running: int, waiting: int, kv_cache_usage: float) -> None:
        """Just before the page is written."""
        self._running.set(running)
        self._waiting.set(waiting)
        self._kv_cache_usage.set(kv_cache_usage)
