"""What the gate counts: the client's side of every request.

The proxy, the hold and the reconcile write here; Prometheus reads `/metrics` on the ops port. The time to
first token counts from the first byte of the request's head at the gate, time in the hold included. It must
not carry anything about a single request.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, get_args

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from paceline_core import Targets, TargetsError

log = structlog.get_logger(__name__)

TTFT_EDGES_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Edges of the time to first token besides the targets: a loopback emulator at one end, at the other a request
that waited while an engine loaded its weights."""

HOLD_EDGES_S: Final = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

CutReason = Literal["max_request_seconds", "engine_lost"]
UnservedReason = Literal["hold_full", "no_engine", "body_too_late", "engine_lost", "router_error"]


class Metrics:
    """Every series of the gate, in a registry of its own."""

    def __init__(self, *, ttft_targets_s: Iterable[float] = ()) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "paceline_gate_requests",
            "Requests answered, by HTTP status; 499 when the client left first.",
            ["code"],
            registry=self.registry,
        )
        self.arrivals = Counter(
            "paceline_gate_arrivals",
            "Requests for an answer that arrived with a valid key, counted when they arrive.",
            registry=self.registry,
        )
        self.client_errors = Counter(
            "paceline_gate_client_errors",
            "Arrivals answered with the status of a fault of their own: not in the denominator of attainment.",
            registry=self.registry,
        )
        self.unserved = Counter(
            "paceline_gate_unserved",
            "Arrivals that failed and that no engine has counted: misses beside paceline_requests_total.",
            ["reason"],
            registry=self.registry,
        )
        for unserved in get_args(UnservedReason):
            self.unserved.labels(unserved)
        self.cut = Counter(
            "paceline_gate_requests_cut",
            "Answers that had begun with status 200 and were cut by the gate.",
            ["reason"],
            registry=self.registry,
        )
        for cut in get_args(CutReason):
            self.cut.labels(cut)
        self.resent = Counter(
            "paceline_gate_requests_resent",
            "Times a request was sent again because the first connection ended without an answer.",
            registry=self.registry,
        )
        self.evicted = Counter(
            "paceline_gate_workers_evicted",
            "Workers taken from the router's list because their port did not answer.",
            registry=self.registry,
        )
        self.held_requests = Gauge(
            "paceline_gate_held_requests", "Requests that wait for an engine now.", registry=self.registry
        )
        self.hold_seconds = Histogram(
            "paceline_gate_hold_seconds",
            "Time that held requests waited for an engine.",
            buckets=HOLD_EDGES_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "paceline_gate_in_flight",
            "Requests that have arrived and whose answer has not ended.",
            registry=self.registry,
        )
        self.router_divergence_s = Gauge(
            "paceline_gate_router_divergence_seconds",
            "How long the router's list of workers has differed from the Ready engine pods; "
            "NaN until the pods have been read once.",
            registry=self.registry,
        )
        self.router_divergence_s.set(float("nan"))
        self._ttft_edges_s: tuple[float, ...] = ()
        self._ttft: Histogram | None = None
        self.set_ttft_targets(ttft_targets_s)

    def observe_ttft(self, ttft_s: float) -> None:
        assert self._ttft is not None
        self._ttft.observe(ttft_s)

    def set_ttft_targets(self, targets_s: Iterable[float]) -> None:
        """Give the histogram of the time to first token an edge at each target.

        Other edges start a new histogram: its counts begin at zero, as after a restart of the gate.
        """
        edges_s = tuple(sorted({*TTFT_EDGES_S, *targets_s}))
        if edges_s == self._ttft_edges_s:
            return
        if self._ttft is not None:
            self.registry.unregister(self._ttft)
        self._ttft_edges_s = edges_s
        self._ttft = Histogram(
            "paceline_gate_time_to_first_token_seconds",
            "Time from a streamed request's arrival to the first chunk of its body, hold included.",
            buckets=edges_s,
            registry=self.registry,
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)


class TargetsFile:
    """targets.json on disk, re-read when it changes. A file that cannot be read leaves the edges alone."""

    def __init__(self, path: Path, *, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._seen: bytes | None = None

    def reread(self) -> None:
        try:
            content = self._path.read_bytes()
        except OSError as error:
            if self._seen is None:
                log.warning("targets_unreadable", path=str(self._path), error=error.strerror)
                self._seen = b""
            return
        if content == self._seen:
            return
        self._seen = content
        try:
            targets = Targets.from_json(content)
        except TargetsError as error:
            log.error("targets_invalid", path=str(self._path), error=str(error))
            return
        # The gate counts no prompt tokens: a target that grows with the prompt has its edge where it starts.
        edges_s = [one.ttft_ms / 1000 for one in targets.classes]
        self._metrics.set_ttft_targets(edges_s)
        log.info("targets_read", ttft_targets_s=edges_s)
