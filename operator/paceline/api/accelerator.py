"""`spec.accelerator`: the device under a replica and the nodes that have it. Read by the fleet (resources,
affinity)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from paceline.api.base import (
    QUALIFIED_NAME,
    ApiModel,
    LabelKey,
    LabelValue,
    Rule,
    list_atomic,
    list_set,
    rules,
    says,
)

CPU = "cpu"


class Toleration(ApiModel):
    """A taint that the engine pods accept (as in a pod)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
                field_path=".value",
                message="a value goes with operator Equal: write operator: Equal, or leave value out",
            ),
            Rule(
                cel="has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                message="without a key every taint is meant: write operator: Exists, or a key",
            ),
        )
    )

    key: Annotated[str, StringConstraints(max_length=317, pattern=QUALIFIED_NAME)] | None = Field(
        default=None, description="Key of the taint. Absent: every key."
    )
    operator: Literal["Equal", "Exists"] | None = Field(
        default=None, description="Equal (the default of Kubernetes) compares the value; Exists takes any."
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Absent: every effect."
    )
    toleration_seconds: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="With effect NoExecute: how long a pod may stay."
    )


class Accelerator(ApiModel):
    """The device of a replica."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="self.products.size() == 0 || self.resourceName != 'cpu'",
                field_path=".products",
                message="it names GPUs, and resourceName is cpu: leave it out",
            )
        )
    )

    resource_name: Annotated[
        str,
        StringConstraints(
            max_length=63, pattern=r"^(cpu|nvidia\.com/gpu|nvidia\.com/mig-[1-7]g\.[0-9]{1,3}gb)$"
        ),
        Field(
            json_schema_extra=says(
                "write nvidia.com/gpu, a MIG profile such as nvidia.com/mig-3g.40gb, or cpu"
            )
        ),
    ] = Field(
        default="nvidia.com/gpu",
        description="Resource that a replica asks for, tensorParallelSize of them: nvidia.com/gpu, or a MIG "
        "profile such as nvidia.com/mig-3g.40gb (tensorParallelSize 1 only). cpu means no device: "
        "tensorParallelSize is then the number of processes.",
    )
    products: Annotated[tuple[Annotated[LabelValue, Field(min_length=1)], ...], Field(max_length=16)] = Field(
        default=(),
        description="GPUs that may be used, by the node label nvidia.com/gpu.product. Empty: any.",
        json_schema_extra=list_set(),
    )
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(
        default_factory=dict, description="Labels that a node must have."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = Field(
        default=(), description="Taints that the engine pods accept.", json_schema_extra=list_atomic()
    )

    @property
    def is_cpu(self) -> bool:
        return self.resource_name == CPU
