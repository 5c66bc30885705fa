"""`spec.scaling` and `spec.transition`: the two dials, their limits, and how long a change may take.

Read by the fleet and by the decision loop. `replicas` and `tensorParallelSize` are what a person sets; in
Auto and Advisory they are the shape that the service starts from, so they are required in every mode and
/scale always has a number to show.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from paceline.api.base import ApiModel, Rule, list_set, rules

Switch = Literal["Enabled", "Disabled"]
ScalingMode = Literal["Manual", "Auto", "Advisory"]
Stragglers = Literal["Replace", "Keep"]
TensorParallelSize = Annotated[int, Field(ge=1, le=64)]


def _is_time(text: str) -> str:
    datetime.fromisoformat(text.replace("Z", "+00:00"))
    return text


Time = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_is_time),
    Field(json_schema_extra={"format": "date-time"}),
]
"""RFC 3339, as the API server checks it."""


class ReplicaBounds(ApiModel):
    """How few and how many replicas there may be."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="self.min <= self.max",
                field_path=".min",
                message="more than max: write a number up to spec.scaling.replicaBounds.max",
            )
        )
    )

    min: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1,
        description="Fewest replicas. 0: in Auto, a service that nobody has asked for anything for "
        "scaleToZero.idleSeconds holds no engine pod; the next request is held at the gate and starts one.",
    )
    max: Annotated[int, Field(ge=1, le=1000)] = Field(description="Most replicas.")


class GpuBudget(ApiModel):
    """How many GPUs the service may hold."""

    max: Annotated[int, Field(ge=1, le=64_000)] = Field(
        description="Most GPUs that a shape of this service may hold (replicas × tensorParallelSize). While "
        "a change brings new pods up beside the old ones, both are held for a time."
    )


class Override(ApiModel):
    """A shape that a person sets for a time, whatever the mode."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(description="Number of replicas until then.")
    tensor_parallel_size: TensorParallelSize = Field(description="GPUs that one replica spans until then.")
    expires_at: Time = Field(
        description="When it ends, such as 2026-12-01T18:00:00Z. Auto then goes on from this shape; Manual "
        "returns to its own."
    )
    reason: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="", description="Why, for those who read the status."
    )


class ScaleDown(ApiModel):
    """How slowly Auto gives capacity back."""

    stabilization_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=300,
        description="Capacity is given back only when the demand of all of this time would have fitted "
        "into less.",
    )


class ScaleToZero(ApiModel):
    """When Auto gives back the last replica."""

    idle_seconds: Annotated[int, Field(ge=10, le=604_800)] = Field(
        default=1800,
        description="Time without a request, none in flight and none held, after which the service goes to "
        "zero. Time in which that is not known does not count.",
    )


class Scaling(ApiModel):
    """The shape of the service and who sets it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!has(self.scaleToZero) || (has(self.replicaBounds) && self.replicaBounds.min == 0)",
                field_path=".scaleToZero",
                message="nothing goes to zero unless spec.scaling.replicaBounds.min is 0: write that, or leave "
                "this out",
            ),
            Rule(
                cel="!has(self.replicaBounds) || (self.replicas >= self.replicaBounds.min && self.replicas "
                "<= self.replicaBounds.max)",
                field_path=".replicas",
                message="outside of spec.scaling.replicaBounds: write a number within them, or widen them",
            ),
            Rule(
                cel="self.allowedTensorParallelSizes.size() == 0 || self.tensorParallelSize in "
                "self.allowedTensorParallelSizes",
                field_path=".tensorParallelSize",
                message="not in spec.scaling.allowedTensorParallelSizes: write one of those, or add it there",
            ),
            Rule(
                cel="!has(self.gpuBudget) || self.replicas * self.tensorParallelSize <= self.gpuBudget.max",
                field_path=".gpuBudget.max",
                message="replicas × tensorParallelSize is more: write fewer of them, or a larger budget",
            ),
            Rule(
                cel="!has(self.gpuBudget) || !has(self.replicaBounds) || self.gpuBudget.max >= "
                "self.replicaBounds.max * (self.allowedTensorParallelSizes.size() == 0 ? "
                "self.tensorParallelSize : self.allowedTensorParallelSizes.min())",
                field_path=".replicaBounds.max",
                message="this many replicas of the smallest tensor-parallel size exceed "
                "spec.scaling.gpuBudget.max: write fewer replicas or a larger budget",
            ),
            Rule(
                cel="!has(self.mode) || self.mode != 'Auto' || has(self.replicaBounds) || "
                "has(self.gpuBudget)",
                field_path=".replicaBounds",
                message="Auto needs a limit: write replicaBounds.max, or gpuBudget.max",
            ),
            Rule(
                cel="!has(self.override) || !has(self.replicaBounds) || (self.override.replicas >= "
                "self.replicaBounds.min && self.override.replicas <= self.replicaBounds.max)",
                field_path=".override.replicas",
                message="outside of spec.scaling.replicaBounds: write a number within them, or widen them",
            ),
            Rule(
                cel="!has(self.override) || self.allowedTensorParallelSizes.size() == 0 || "
                "self.override.tensorParallelSize in self.allowedTensorParallelSizes",
                field_path=".override.tensorParallelSize",
                message="not in spec.scaling.allowedTensorParallelSizes: write one of those, or add it there",
            ),
            Rule(
                cel="!has(self.override) || !has(self.gpuBudget) || self.override.replicas * "
                "self.override.tensorParallelSize <= self.gpuBudget.max",
                field_path=".override",
                message="replicas × tensorParallelSize exceeds spec.scaling.gpuBudget.max: write fewer of "
                "them, or a larger budget",
            ),
        )
    )

    mode: ScalingMode = Field(
        default="Manual",
        description="Manual: the shape below holds. Auto: the service starts with the shape below, and the "
        "planner moves both dials to keep the SLO. Advisory: the planner writes what it would do into "
        "status.decisions and changes nothing.",
    )
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Number of replicas: what Manual holds and Auto starts from. Also written through "
        "/scale. Never 0: nobody would start a replica for the next request; write mode Auto and "
        "replicaBounds.min: 0."
    )
    tensor_parallel_size: TensorParallelSize = Field(
        description="GPUs that one replica spans (processes where resourceName is cpu): what Manual holds "
        "and Auto starts from. It must divide the attention heads of the model."
    )
    replica_bounds: ReplicaBounds | None = Field(
        default=None, description="Limits of `replicas`, whoever writes it. Absent: none."
    )
    allowed_tensor_parallel_sizes: Annotated[tuple[TensorParallelSize, ...], Field(max_length=8)] = Field(
        default=(),
        description="Tensor-parallel sizes that the service may take. Empty: any that fits the model.",
        json_schema_extra=list_set(),
    )
    gpu_budget: GpuBudget | None = Field(default=None, description="Limit of GPUs. Absent: none.")
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = Field(
        default=0,
        description="Who gets GPUs first when the services in Auto wish for more than the cluster's GPU budget or "
        "the nodes that they share have: the higher number. A service of lower priority gives back what it "
        "holds beyond its fewest replicas; between equals, who holds keeps.",
    )
    spare_replicas: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0,
        description="Replicas that Auto keeps beyond what the SLO needs, against the loss of a pod or a node.",
    )
    scale_down: ScaleDown = Field(
        default_factory=ScaleDown, description="How slowly Auto gives capacity back."
    )
    scale_to_zero: ScaleToZero | None = Field(
        default=None,
        description="When Auto gives back the last replica, where replicaBounds.min is 0. Absent: after 1800 "
        "idle seconds.",
    )
    stragglers: Stragglers = Field(
        default="Replace",
        description="What becomes of an engine pod that is Ready and has taken more than three times as long for a token "
        "as its peers (their median) for a minute. Replace: it is deleted and drains, and another takes its place; one "
        "at a time, none while other pods start or leave, and at most one in ten minutes; in every mode but Advisory, "
        "and not with router.policy CacheAware, which may send one pod the longer prompts: there, and with Keep, an "
        "event names it and nothing else happens. It takes two replicas or more, and a Prometheus that the operator "
        "reads.",
    )
    override: Override | None = Field(
        default=None, description="A shape that holds until a time, whatever the mode. Absent: none."
    )

    @property
    def idle_seconds(self) -> int | None:
        """The idle time after which the service goes to zero; None where it never does."""
        if self.replica_bounds is None or self.replica_bounds.min > 0:
            return None
        return (self.scale_to_zero or ScaleToZero()).idle_seconds

    @property
    def least_replicas(self) -> int:
        """The bound below, in this mode. Only Auto goes to zero: in any other nobody would wake the service."""
        least = self.replica_bounds.min if self.replica_bounds is not None else 1
        return least if self.mode == "Auto" else max(least, 1)


class CanaryCheck(ApiModel):
    """Whether engines that come must answer as those that serve, and as fast."""

    mode: Switch = Field(
        default="Enabled",
        description="Enabled: an engine that starts serves only if it gives a fixed text the log-probabilities that those "
        "gave which served the same model in the same formats before it, and a token takes it no longer than "
        "latencyMarginPercent allows; a change that does not is rolled back. Disabled: it serves whatever it answers, for "
        "a runtime image that is meant to answer otherwise.",
    )
    latency_margin_percent: Annotated[int, Field(ge=10, le=1000)] = Field(
        default=50,
        description="How much longer than expected a token of one request alone may take. Expected is what it took the "
        "engines that served before, times what the timing tables say of the two tensor-parallel sizes. Not compared on "
        "a CPU, nor between sizes of a model that no table knows.",
    )


class Transition(ApiModel):
    """How long a change of the engine pods may take, and how often there may be one."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="self.pendingDeadlineSeconds <= self.readyDeadlineSeconds",
                field_path=".pendingDeadlineSeconds",
                message="longer than spec.transition.readyDeadlineSeconds: write at most that",
            ),
            Rule(
                cel="!has(self.maxHoldSeconds) || self.maxHoldSeconds == 0 || (has(self.inPlace) && self.inPlace == "
                "'Enabled') || (has(self.recreate) && self.recreate == 'Enabled')",
                field_path=".maxHoldSeconds",
                message="nothing is held for a change unless spec.transition.inPlace or recreate is Enabled: write one "
                "of them, or leave this out",
            ),
        )
    )

    in_place: Switch = Field(
        default="Disabled",
        description="Enabled: where the scheduler finds no GPUs for the pods of another tensor-parallel size, the pods "
        "that serve change to it one after the other, each within its own GPUs: from one engine of size 8 to two of "
        "size 4 behind one port. It needs replicas × tensorParallelSize to fill whole pods. Each pod is away while it "
        "starts anew, and the others carry its load. Auto weighs the requests that miss by it, and adds and removes "
        "replicas by whole pods afterwards.",
    )
    recreate: Switch = Field(
        default="Disabled",
        description="Enabled: where new pods of whatever change of the engine pods still find no GPUs after "
        "pendingDeadlineSeconds, and a change in place is not to be had, old pods leave first, one after the other, as "
        "many at a time as the next new one needs. Meanwhile there are fewer pods than before, and while the only one is "
        "replaced there is none. What an old pod leaves may go to another workload before the new one has it. Auto does "
        "not take this way to another tensor-parallel size.",
    )
    max_hold_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=0,
        description="Longest time that requests are held at the gate while the only pod changes in place or is "
        "recreated; the wait counts in the time to the first token. It covers the last requests of the pod and a start. "
        "0: a single pod is not changed in place, and while it is recreated requests are held no longer than usual.",
    )
    canary: CanaryCheck = Field(
        default_factory=CanaryCheck,
        description="Whether engines that come must answer as those that serve, and as fast.",
    )
    ready_deadline_seconds: Annotated[int, Field(ge=10, le=86_400)] = Field(
        default=900,
        description="Time for all new pods to become Ready, weights loaded and warmed up. After it the old "
        "pods stay and the new go.",
    )
    pending_deadline_seconds: Annotated[int, Field(ge=5, le=86_400)] = Field(
        default=120,
        description="Time that a new pod may stay unschedulable before the change is rolled back.",
    )
    min_dwell_seconds: Annotated[int, Field(ge=0, le=604_800)] = Field(
        default=3600,
        description="Least time between two changes of the tensor-parallel size that Auto makes by itself.",
    )
    rollback_cooldown_seconds: Annotated[int, Field(ge=0, le=604_800)] = Field(
        default=21_600,
        description="How long Auto does not try a shape again after it failed (status.refusedShapes).",
    )
