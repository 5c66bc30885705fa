"""What the planner answers: the shape, why, what else was weighed, and what it carries to the next call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paceline.planner.observation import Shape
from paceline.planner.state import PlannerState

Reason = Literal[
    "Steady",
    "FirstShape",
    "FloorAboveTarget",
    "QueueingAboveTarget",
    "ForecastAboveCapacity",
    "Backlog",
    "CheaperShapeSafe",
    "CheaperTensorParallelSize",
    "Limited",
    "MetricsUnknown",
    "Dwelling",
    "ChangeUnderWay",
    "Idle",
    "RequestHeld",
]
"""One word for why the shape is what it is. `Limited`: the best shape that fits GPUs, budget and bounds. `Idle` and
`RequestHeld` are not the planner's but those of `sleep`: to zero, and back."""

Limit = Literal[
    "None",
    "Inventory",
    "Topology",
    "Quota",
    "GpuBudget",
    "ClusterBudget",
    "Priority",
    "MaxReplicas",
    "MinReplicas",
    "TensorParallelSizes",
    "Refused",
]
"""What keeps a better shape from being chosen. Topology: enough GPUs, but not on one node. Quota:
what the namespace may request. ClusterBudget and Priority: what the services of the cluster leave to each other.
Refused: shapes that failed lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a shape would give under the demand that the decision was made for."""

    ttft_p50_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p95_s: float
    tpot_p99_s: float
    attainment: float
    """Joint: share of requests that meet all their targets, 0 to 1."""
    utilization: float
    """Demand over the highest demand that the shape can carry at all; above 1 queues grow without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """How another tensor-parallel size is come to, and what that costs."""

    how: Literal["Surge", "InPlace"]
    gpus_beside: int
    """GPUs that the new pods take beside the old ones; in place none."""
    hold_s: float
    """Requests are held for so long, where the only pod changes."""
    missed: float
    """Requests that are expected to miss their targets because of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    shape: Shape
    gpus: int
    prediction: Prediction
    rejected: str | None
    """Why not this one, in a sentence; None for the one chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The caller hands `state` back with the next look; it is explicit and serialisable."""

    shape: Shape
    reason: Reason
    message: str
    feasible: bool | None
    """Whether some allowed shape meets the objective; None: unknown."""
    limit: Limit
    predicted: Prediction | None
    candidates: tuple[Candidate, ...]
    would_change: tuple[str, ...]
    """What would lead to another answer, each in a sentence."""
    confidence: float
    """0: prior only, contradicted or unknown; 1: many own measurements agree with the model."""
    state: PlannerState
    runner_up: Shape | None = None
    """The candidate that came second; its `rejected` says why it lost."""
    demand_per_s: float | None = None
    """Requests/s that the shape was made for: forecast and backlog."""
    problems: tuple[str, ...] = ()
    """Figures that cannot all be true."""
    switch: Switch | None = None
    """None: the tensor-parallel size stays."""

    @property
    def in_place(self) -> bool:
        return self.switch is not None and self.switch.how == "InPlace"
