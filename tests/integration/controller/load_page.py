"""Stands for the pods' metrics pages under a load that a test sets: every counter grows as a served load makes
it grow, split evenly over the Ready gates and engines. Prometheus, which scrapes them, is real.

One HTTP server; the page of a pod is `/<service>/<component>/<pod>`.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.integration.controller.cluster import ENGINE, LABEL, ROUTER, Cluster, Raw
from tests.integration.controller.repeated import repeated
from tests.integration.metrics.prometheus_server import PrometheusServer, Target

PROMPT_TOKENS, OUTPUT_TOKENS = 100, 64
STEP_S, TTFT_S = 0.020, 0.050
PERIOD_S = 0.2
LATENCY_EDGES = (0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
LENGTH_EDGES = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
SIZE_LABEL = "paceline.dev/tensor-parallel-size"
GATE_OPS_PORT = 9090


class LoadPage:
    """The load on one service."""

    def __init__(self, cluster: Cluster, *, service: str) -> None:
        self.rate_per_s = 0.0
        self.good_share = 1.0
        self.held = 0
        """Requests that wait at each gate."""
        self.slow = dict[str, float]()
        """How many times longer the steps of a pod take, by its name."""
        self._cluster = cluster
        self._service = service
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._engines: list[str] = []
        self._gates: list[str] = []
        self._at_s = time.monotonic()
        self.port = 0

    def targets(self) -> list[Target]:
        """Of the pods that are there now; the load is split over the Ready ones from here on."""
        pods = self._cluster.objects("Pod", selector=f"{LABEL}={self._service}")
        self.advance()
        with self._lock:
            ready = [pod for pod in pods if _is_ready(pod)]
            self._engines = [_name(pod) for pod in ready if _component(pod) == ENGINE]
            self._gates = [_name(pod) for pod in ready if _component(pod) == ROUTER]
        return [
            Target(
                address=f"127.0.0.1:{self.port}",
                labels={
                    "__metrics_path__": f"/{self._service}/{_component(pod)}/{_name(pod)}",
                    "namespace": self._cluster.namespace,
                    "pod": _name(pod),
                    "paceline_dev_service": self._service,
                    **(
                        {"paceline_dev_tensor_parallel_size": pod["metadata"]["labels"][SIZE_LABEL]}
                        if _component(pod) == ENGINE
                        else {}
                    ),
                },
            )
            for pod in pods
            if _is_ready(pod)
        ]

    def advance(self) -> None:
        with self._lock:
            now_s = time.monotonic()
            requests = self.rate_per_s * (now_s - self._at_s)
            self._at_s = now_s
            for name in self._gates:
                self._counts[name]["requests"] += requests / len(self._gates)
            for name in self._engines:
                share = requests / len(self._engines)
                self._counts[name]["requests"] += share
                self._counts[name]["good"] += share * self.good_share
                self._counts[name]["step_s"] += share * STEP_S * self.slow.get(name, 1.0)

    def gates(self) -> list[str]:
        """Those that are Ready."""
        with self._lock:
            return list(self._gates)

    def engines(self) -> list[str]:
        """The same."""
        with self._lock:
            return list(self._engines)

    def page(self, component: str, pod: str) -> str:
        self.advance()
        with self._lock:
            if component == ROUTER:
                return "\n".join(self._gate(pod)) + "\n"
            return "\n".join(self._engine(pod)) + "\n"

    def _gate(self, pod: str) -> Iterator[str]:
        count = self._counts[pod]["requests"]
        in_flight = self.rate_per_s / max(len(self._gates), 1) * (TTFT_S + OUTPUT_TOKENS * STEP_S)
        yield f"paceline_gate_arrivals_total {count}"
        yield "paceline_gate_client_errors_total 0"
        yield 'paceline_gate_unserved_total{reason="refused"} 0'
        yield f"paceline_gate_held_requests {self.held}"
        yield f"paceline_gate_in_flight {in_flight + self.held:.0f}"
        yield from _histogram("paceline_gate_time_to_first_token_seconds", "", LATENCY_EDGES, TTFT_S, count)

    def _engine(self, pod: str) -> Iterator[str]:
        counts, names = self._counts[pod], 'model_name="chat",engine="0"'
        count, good = counts["requests"], counts["good"]
        running = self.rate_per_s / max(len(self._engines), 1) * (TTFT_S + OUTPUT_TOKENS * STEP_S)
        yield f'paceline_requests_total{{latency_class="all",outcome="good"}} {good}'
        yield f'paceline_requests_total{{latency_class="all",outcome="late_ttft"}} {count - good}'
        yield f"paceline_requests_in_flight {running:.0f}"
        yield f"vllm:num_requests_running{{{names}}} {running:.0f}"
        yield f"vllm:num_requests_waiting{{{names}}} 0"
        yield f"vllm:kv_cache_usage_perc{{{names}}} 0.1"
        yield 'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="4096"} 1'
        yield f"vllm:prompt_tokens_total{{{names}}} {count * PROMPT_TOKENS}"
        yield f"vllm:prompt_tokens_cached_total{{{names}}} 0"
        yield f"vllm:generation_tokens_total{{{names}}} {count * OUTPUT_TOKENS}"
        yield f"vllm:num_preemptions_total{{{names}}} 0"
        step_s = counts["step_s"] / count if count else STEP_S
        for name, edges, value, each in (
            ("time_to_first_token_seconds", LATENCY_EDGES, TTFT_S, 1),
            ("request_time_per_output_token_seconds", LATENCY_EDGES, step_s, 1),
            ("inter_token_latency_seconds", LATENCY_EDGES, step_s, OUTPUT_TOKENS),
            ("request_prompt_tokens", LENGTH_EDGES, float(PROMPT_TOKENS), 1),
            ("request_generation_tokens", LENGTH_EDGES, float(OUTPUT_TOKENS), 1),
        ):
            yield from _histogram(f"vllm:{name}", names, edges, value, count * each)


@contextmanager
def load_page(cluster: Cluster, prometheus: PrometheusServer, *, service: str) -> Iterator[LoadPage]:
    """Served and scraped until the end of the block."""
    with load_pages(cluster, prometheus, services=(service,)) as loads:
        yield loads[service]


@contextmanager
def load_pages(
    cluster: Cluster, prometheus: PrometheusServer, *, services: Sequence[str]
) -> Iterator[dict[str, LoadPage]]:
    """The same of several services, by their names."""
    loads = {service: LoadPage(cluster, service=service) for service in services}

    def page(path: str) -> str:
        _, service, component, pod = path.split("/")
        return loads[service].page(component, pod)

    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(page))
    for load in loads.values():
        load.port = server.server_address[1]

    def follow() -> None:
        prometheus.scrape([target for load in loads.values() for target in load.targets()])

    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with repeated(follow, every_s=PERIOD_S):
            yield loads
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def gate_door(load: LoadPage, *, ip: str) -> Iterator[None]:
    """The operations port of the only gate, where the operator asks it itself."""
    server = ThreadingHTTPServer((ip, GATE_OPS_PORT), _handler(lambda _: load.page(ROUTER, load.gates()[0])))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def _handler(page: Callable[[str], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page(self.path).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler


def _histogram(name: str, labels: str, edges: Sequence[float], value: float, count: float) -> Iterator[str]:
    comma = "," if labels else ""
    for edge in edges:
        yield f'{name}_bucket{{{labels}{comma}le="{edge}"}} {count if value <= edge else 0}'
    yield f'{name}_bucket{{{labels}{comma}le="+Inf"}} {count}'
    yield f"{name}_sum{{{labels}}} {count * value}"
    yield f"{name}_count{{{labels}}} {count}"


def _name(pod: Raw) -> str:
    return str(pod["metadata"]["name"])


def _component(pod: Raw) -> str:
    return str(pod["metadata"]["labels"]["paceline.dev/component"])


def _is_ready(pod: Raw) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return "deletionTimestamp" not in pod["metadata"] and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )
