"""`spec.scaling` and `spec.transition`: the two dials, their limits, and how long a change may take.

Read by the fleet. `replicas` and `tensorParallelSize` are what a person sets; in Auto and Advisory they are
the shape that the service starts from, so they are required in every mode and /scale always has a number to
show.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from paceline.api.base import ApiModel, Rule, list_set, rules

ScalingMode = Literal["Manual", "Auto", "Advisory"]
TensorParallelSize = Annotated[int, Field(ge=1, le=64)]


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

    min: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Fewest replicas.")
    max: Annotated[int, Field(ge=1, le=1000)] = Field(description="Most replicas.")


class GpuBudget(ApiModel):
    """How many GPUs the service may hold."""

    max: Annotated[int, Field(ge=1, le=64_000)] = Field(
        description="Most GPUs that a shape of this service may hold (replicas × tensorParallelSize). While "
        "a change brings new pods up beside the old ones, both are held for a time."
    )


class Scaling(ApiModel):
    """The shape of the service and who sets it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
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
        )
    )

    mode: ScalingMode = Field(
        default="Manual",
        description="Manual: the shape below holds. Auto and Advisory: the planner sets or proposes the "
        "shape; until it drives them, they hold the shape below and say so in the condition ScalingActive.",
    )
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Number of replicas: what Manual holds and Auto starts from. Also written through /scale."
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


class Transition(ApiModel):
    """How long a change of the engine pods may take before it is rolled back."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="self.pendingDeadlineSeconds <= self.readyDeadlineSeconds",
                field_path=".pendingDeadlineSeconds",
                message="longer than spec.transition.readyDeadlineSeconds: write at most that",
            )
        )
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
