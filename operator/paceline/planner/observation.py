"""What the planner is told: one look at a service, with how far each figure can be trusted.

Built by `metrics` from Prometheus and by the simulator from its emulated scrapes, in the same way, so that the
decision that is scored is the one that runs. Unknown is `None`, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paceline_core.latency import Targets

Trust = Literal["Fresh", "Stale", "Thin", "Missing", "Contradicted"]
"""Stale: too old. Thin: too few samples. Missing: no answer, NaN or an outage. Contradicted: two sources
disagree. Only Fresh may lower anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number."""

    value: float | None
    age_s: float | None = None
    """Since the newest sample behind it."""
    samples: float | None = None
    """Requests (or scrapes, for a gauge) behind it."""
    trust: Trust = "Fresh"

    @property
    def fresh(self) -> float | None:
        """The value, if it may be acted on."""
        return self.value if self.trust == "Fresh" else None


MISSING = Figure(value=None, trust="Missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A histogram of token counts, over the same window as the rate."""

    upper_tokens: tuple[float, ...]
    """Upper edges of the buckets, ascending; the last may be infinite."""
    counts: tuple[float, ...]
    """Requests in each bucket (not cumulative)."""
    mean_tokens: float
    """Exact: sum over count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    p50_s: Figure = MISSING
    p95_s: Figure = MISSING
    p99_s: Figure = MISSING
    mean_s: Figure = MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What clients ask of the service, counted at the gate: held and refused requests included."""

    requests_per_s: Figure
    """Over `window_s`."""
    window_s: float
    prompt: Lengths | None = None
    output: Lengths | None = None
    """Of requests that ended in the window: long answers are seen late."""
    cached_prompt_share: Figure = MISSING
    """Share of prompt tokens that the prefix cache had, 0 to 1."""
    held_requests: Figure = MISSING
    """Waiting at the gate because no engine can take them."""
    in_flight_requests: Figure = MISSING
    """Arrived at the gate and not answered to the end, held ones too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The replicas of one tensor-parallel size, as the cluster and their metrics show them."""

    tensor_parallel_size: int
    ready: int
    starting_age_s: tuple[float, ...] = ()
    """One a replica that is not Ready yet: seconds since it was created."""
    draining: int = 0
    running: Figure = MISSING
    """Requests in the engines' batches, all replicas together."""
    waiting: Figure = MISSING
    """Requests in the engines' queues, all replicas together."""
    kv_cache_usage: Figure = MISSING
    """Mean over replicas, 0 to 1."""
    prefill_tokens_per_s: Figure = MISSING
    """Prompt tokens computed, cached ones left out, all replicas together."""
    decode_tokens_per_s: Figure = MISSING
    preemptions_per_s: Figure = MISSING
    time_to_first_token: Quantiles = Quantiles()
    """As the engine sees it: without the time before it."""
    inter_token_latency: Quantiles = Quantiles()
    time_per_output_token: Quantiles = Quantiles()
    """A request's mean gap: what the SLO speaks of."""
    kv_cache_tokens: int | None = None
    """Of one replica, as the engine reports it."""

    @property
    def starting(self) -> int:
        return len(self.starting_age_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGpus:
    """GPUs of one node that the service's pods may use, or of each of several nodes that are alike."""

    total: int
    free: int
    """Allocatable and requested by nobody, this service's own pods included."""
    count: int = 1
    """So many nodes are alike: of a thousand nodes an observation holds a few lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTime:
    """From the creation of a pod to Ready, learned from this service's own starts."""

    tensor_parallel_size: int
    p50_s: float
    p90_s: float
    starts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One choice of the two dials."""

    tensor_parallel_size: int
    replicas: int

    @property
    def gpus(self) -> int:
        return self.tensor_parallel_size * self.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the spec asks and allows."""

    targets: Targets
    objective: float
    """Share of requests that meet all their targets, 0 to 1."""
    allowed_tensor_parallel_sizes: tuple[int, ...]
    min_replicas: int
    max_replicas: int
    max_gpus: int | None = None
    """None: the inventory alone limits."""
    spare_replicas: int = 0
    scale_down_stabilization_s: float = 300.0
    min_dwell_s: float = 3600.0
    """Least time between two changes of the tensor-parallel size."""
    max_sequences: int = 256
    """Requests in one engine's batch."""
    max_batched_tokens: int = 8192
    """Tokens in one engine step: the prefill chunk."""
    idle_s: float | None = None
    """Time without a request after which the service goes to zero; None: it never does. The planner does not look
    at this: `sleep` does."""
    hold_s: float = 30.0
    """The longest that a request waits at the gate for an engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlace:
    """The pods that serve may change to another tensor-parallel size within their own GPUs, one after the other."""

    pods: int
    gpus_per_pod: int
    away_s: float
    """How long each is away: a start, and until the routers have seen it go and come."""
    max_hold_s: float
    """The longest that requests may be held, where it is the only one; 0: it is left alone."""
    most_held: int
    """Requests that find a place at the gates meanwhile."""


SharedLimit = Literal["ClusterBudget", "Priority"]
"""ClusterBudget: what all services may hold together. Priority: GPUs of shared nodes, which others hold already or
come before it for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What is left to a service that wished for more than its share of the cluster's GPUs."""

    gpus: int
    """In all, those that it holds among them."""

    limit: SharedLimit
    why: str
    """In words, for the decision's message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything that a decision depends on, beside the planner's own carried state."""

    now_s: float
    """Unix time."""
    goal: Goal
    traffic: Traffic
    attainment: Figure
    """Share of the requests of the window that met all their targets, from exact counters."""
    groups: tuple[Group, ...]
    nodes: tuple[NodeGpus, ...]
    quota_gpus: int | None = None
    """GPUs that a quota leaves to the service, beside those that it holds. None: no quota, or none is known."""
    grant: Grant | None = None
    """None: its own limits alone bind."""
    start_times: tuple[StartTime, ...] = ()
    current: Shape | None = None
    """The shape that the cluster was last told to have. None: nothing runs yet."""
    replicas_per_pod: int = 1
    """Of the present size: replicas behind one port, on the GPUs of one pod, that come and go together."""
    in_place: InPlace | None = None
    """None: another tensor-parallel size needs other pods."""
    changing: bool = False
    """A change of the tensor-parallel size is under way."""
    refused: tuple[Shape, ...] = ()
    """Shapes that failed lately (unschedulable, not ready in time, canary) and are not to be tried now."""
    no_room_beside: tuple[Shape, ...] = ()
    """The smallest shapes of other sizes that do not fit beside the present one: a surge brings the new pods up first."""
    notes: tuple[str, ...] = ()
    """What was wrong with the metrics, as a person reads it."""

    def unit(self, tensor_parallel_size: int) -> int:
        """Replicas of that size come and go by so many."""
        current = self.current
        mine = current is not None and current.tensor_parallel_size == tensor_parallel_size
        return self.replicas_per_pod if mine else 1
