"""`status`: what the operator has seen and done. Written by the controller alone, read by people, /scale and
the fleet.

Unknown is absent, never 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from paceline.api.base import StatusModel, list_atomic, list_map

ConditionType = Literal[
    "Ready",
    "Progressing",
    "ModelLoaded",
    "RouterReady",
    "MetricsAvailable",
    "SLOMet",
    "Feasible",
    "CapacityAvailable",
    "Transitioning",
    "ForeignWriter",
    "DrainLimited",
    "ScalingActive",
]
ConditionStatus = Literal["True", "False", "Unknown"]

_Text = Annotated[str, StringConstraints(max_length=1024)]
_Name = Annotated[str, StringConstraints(max_length=253)]
_Short = Annotated[str, StringConstraints(max_length=64)]
_Count = Annotated[int, Field(ge=0)]
_Time = Annotated[str, StringConstraints(max_length=64), Field(json_schema_extra={"format": "date-time"})]


class Condition(StatusModel):
    """One statement about the service, in the form that all of Kubernetes uses."""

    type: ConditionType = Field(description="What the statement is about.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    observed_generation: _Count | None = Field(
        default=None, description="Generation of the spec it was made for."
    )
    last_transition_time: _Time = Field(description="When `status` last changed.")
    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    ] = Field(description="Why, in one CamelCase word.")
    message: Annotated[str, StringConstraints(max_length=4096)] = Field(
        default="", description="Why, in a sentence, and what to do about it."
    )


class ModelStatus(StatusModel):
    """What is known of the checkpoint."""

    revision: _Name | None = Field(
        default=None, description="Commit that the revision in spec.model.uri was resolved to."
    )
    attention_heads: _Count | None = Field(
        default=None, description="Attention heads: the tensor-parallel size divides them."
    )
    kv_heads: _Count | None = Field(default=None, description="Key-value heads.")
    weights_bytes: _Count | None = Field(default=None, description="Bytes of the weights on disk.")


class Summary(StatusModel):
    """What the columns of `kubectl get` show."""

    replicas: _Name | None = Field(default=None, description="Ready and desired replicas, such as 2/3.")
    time_to_first_token: _Name | None = Field(
        default=None,
        description="Measured time to the first token against its target; `-` where it is not measured.",
    )
    time_per_output_token: _Name | None = Field(
        default=None,
        description="Measured time per output token against its target; `-` where it is not measured.",
    )
    reason: _Name | None = Field(default=None, description="Why the service is as it is, in one word.")


class Shape(StatusModel):
    """One choice of the two dials."""

    tensor_parallel_size: _Count = Field(description="GPUs that one replica spans.")
    replicas: _Count = Field(description="Number of replicas.")


class Shapes(StatusModel):
    """Where the service is, where it goes, and where it was last well."""

    current: Shape | None = Field(default=None, description="The shape that serves.")
    desired: Shape | None = Field(default=None, description="The shape that is aimed at.")
    last_safe: Shape | None = Field(
        default=None, description="The shape that last served with all replicas Ready."
    )


class GpuCount(StatusModel):
    """GPUs that the service holds, by what their pods do."""

    serving: _Count = Field(description="GPUs of pods that serve.")
    starting: _Count = Field(description="GPUs of pods that start.")
    draining: _Count = Field(description="GPUs of pods that finish their last requests.")
    budget: _Count | None = Field(
        default=None, description="Most GPUs that a shape may hold: spec.scaling.gpuBudget.max."
    )


class BurnRate(StatusModel):
    """How fast the error budget is spent."""

    window_seconds: _Count = Field(description="Over this time.")
    value: _Short = Field(
        description="1: exactly the whole budget in the whole window of the SLO; above, it ends early."
    )


class SloStatus(StatusModel):
    """How well the objective is kept. Refreshed every two minutes, and when a condition changes."""

    attainment_percent: _Short | None = Field(
        default=None, description="Share of the last minutes' requests that met all their targets."
    )
    samples: _Count | None = Field(default=None, description="Requests behind it.")
    budget_remaining_percent: _Short | None = Field(
        default=None,
        description="What is left of the error budget of spec.slo.windowSeconds, as far back as there are "
        "metrics. Negative: more was missed than the objective allows.",
    )
    burn_rates: Annotated[tuple[BurnRate, ...], Field(max_length=4)] = Field(
        default=(), description="How fast the budget is spent.", json_schema_extra=list_atomic()
    )
    as_of: _Time = Field(description="When this was measured.")


class DecisionStatus(StatusModel):
    """What the planner decided, and why. Written when it decides something else."""

    at: _Time = Field(description="When it was decided.")
    mode: _Short = Field(description="Mode of the service then: Auto applied it, Advisory only says it.")
    before: Shape | None = Field(default=None, description="The shape before.")
    shape: Shape = Field(description="The shape decided on.")
    reason: _Short = Field(description="Why, in one CamelCase word.")
    message: Annotated[str, StringConstraints(max_length=400)] = Field(
        default="", description="Why, in a sentence."
    )
    limit: _Short | None = Field(
        default=None, description="What kept a better shape out of reach: a budget, a bound, the GPUs."
    )
    predicted_attainment_percent: _Short | None = Field(
        default=None, description="Share of requests that would meet all their targets with it."
    )


class RefusedShape(StatusModel):
    """A shape that failed, and is not tried again for a while."""

    tensor_parallel_size: _Count = Field(description="GPUs that one replica spans.")
    replicas: _Count = Field(description="Number of replicas.")
    reason: _Short = Field(description="Why, in one CamelCase word.")
    message: Annotated[str, StringConstraints(max_length=400)] = Field(
        default="", description="Why, in a sentence."
    )
    until: _Time = Field(description="When it may be tried again.")


class StragglerStatus(StatusModel):
    """An engine pod that was much slower than its peers."""

    pod: _Name = Field(description="Name of the pod.")
    at: _Time = Field(description="When it was found.")
    action: Literal["Replaced", "Kept"] = Field(
        description="Replaced: it was deleted, and another took its place. Kept: it was only named."
    )
    message: _Text = Field(default="", description="How slow it was, and why it was kept, if it was.")


class VariantStatus(StatusModel):
    """The pods that share one template."""

    name: _Name = Field(description="Name of the variant, such as tp1-9f2c1a2b.")
    tensor_parallel_size: _Count = Field(description="GPUs that one of its replicas spans.")
    ready: _Count = Field(description="Pods that serve.")
    starting: _Count = Field(description="Pods that start.")
    draining: _Count = Field(description="Pods that finish their last requests.")


class TransitionStatus(StatusModel):
    """The change of the engine pods that is under way. Written before each of its steps."""

    id: _Count = Field(description="Number of the change; it only grows.")
    from_variant: _Name | None = Field(default=None, alias="from", description="Variant that leaves.")
    to_variant: _Name | None = Field(default=None, alias="to", description="Variant that comes.")
    from_layout: _Short | None = Field(
        default=None, description="In place: how a pod divided its GPUs before, such as tp=8,dp=1."
    )
    to_layout: _Short | None = Field(
        default=None, description="In place: how it is to divide them, such as tp=4,dp=2."
    )
    recreate_gpus: _Count | None = Field(
        default=None,
        description="By recreate: GPUs that its pods were on when old pods began to leave for new ones.",
    )
    step: _Name = Field(description="Step that is under way.")
    started_at: _Time | None = Field(default=None, description="When the change began.")
    step_started_at: _Time | None = Field(
        default=None, description="By recreate: when the step began, since these take turns."
    )
    deadline: _Time | None = Field(
        default=None, description="When it is rolled back unless the step has come to its end."
    )


class Refused(StatusModel):
    """A spec that could not be served. It is not tried again until the spec changes."""

    generation: _Count = Field(description="Generation of the spec that was refused.")
    field: _Name | None = Field(default=None, description="Field of the spec that was at fault, if one was.")
    reason: _Name = Field(description="Why, in one CamelCase word.")
    message: _Text = Field(default="", description="Why, in a sentence, and the way out.")


class InferenceServiceStatus(StatusModel):
    """What the operator has seen and done."""

    observed_generation: _Count | None = Field(
        default=None, description="Generation of the spec that this status is about."
    )
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = Field(
        default=(), description="Statements about the service.", json_schema_extra=list_map("type")
    )
    model: ModelStatus | None = Field(default=None, description="What is known of the checkpoint.")
    url: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Base of the OpenAI-compatible API, within the cluster."
    )
    selector: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Label selector of the engine pods, for /scale."
    )
    replicas: _Count | None = Field(default=None, description="Engine pods that exist, for /scale.")
    summary: Summary | None = Field(default=None, description="What the columns of `kubectl get` show.")
    shape: Shapes | None = Field(default=None, description="The two dials: now, aimed at, and last safe.")
    gpus: GpuCount | None = Field(
        default=None, description="GPUs that the service holds (0 where resourceName is cpu)."
    )
    variants: Annotated[tuple[VariantStatus, ...], Field(max_length=32)] = Field(
        default=(), description="The variants that have pods.", json_schema_extra=list_map("name")
    )
    transition: TransitionStatus | None = Field(
        default=None, description="The change that is under way or was the last."
    )
    refused: Refused | None = Field(default=None, description="The last spec that could not be served.")
    slo: SloStatus | None = Field(default=None, description="How well the objective is kept.")
    decisions: Annotated[tuple[DecisionStatus, ...], Field(max_length=10)] = Field(
        default=(),
        description="The planner's last decisions, newest first. The candidates that it weighed stand in "
        "the ConfigMap NAME-decisions; `paceline explain NAME` shows both.",
        json_schema_extra=list_atomic(),
    )
    refused_shapes: Annotated[tuple[RefusedShape, ...], Field(max_length=8)] = Field(
        default=(),
        description="Shapes that failed and that Auto does not try again for a while.",
        json_schema_extra=list_atomic(),
    )
    last_straggler: StragglerStatus | None = Field(
        default=None,
        description="The last engine pod that was found much slower than its peers, and what was done.",
    )

    def condition(self, type_: ConditionType) -> Condition | None:
        return next((one for one in self.conditions if one.type == type_), None)
