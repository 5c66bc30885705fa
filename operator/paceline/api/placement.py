"""`spec.placement` and `spec.disruption`: where engine pods go among the nodes, and how many may leave at
once.

Read by the fleet (pod template, PodDisruptionBudget).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from paceline.api.base import DNS_SUBDOMAIN, QUALIFIED_NAME, ApiModel, Rule, list_map, rules, says

_OptionalName = Annotated[
    str,
    StringConstraints(max_length=253, pattern=r"^$|" + DNS_SUBDOMAIN),
    Field(json_schema_extra=says("write the name of an object: lower case letters, digits, '-' and '.'")),
]


class TopologySpreadConstraint(ApiModel):
    """How engine pods spread (as in a pod). The label selector is always that of the service's own engine
    pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                cel="!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'",
                field_path=".minDomains",
                message="minDomains goes with whenUnsatisfiable: DoNotSchedule: write that, or leave "
                "minDomains out",
            )
        )
    )

    max_skew: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Largest difference of pods between two domains."
    )
    topology_key: Annotated[str, StringConstraints(min_length=1, max_length=317, pattern=QUALIFIED_NAME)] = (
        Field(description="Node label whose values are the domains, such as kubernetes.io/hostname.")
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        default="ScheduleAnyway", description="Whether a pod that would break the spread waits."
    )
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Fewest domains, with DoNotSchedule."
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None,
        description="Whether nodes that the pods may not use count as domains (Kubernetes: Honor).",
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None,
        description="Whether nodes with taints that the pods do not accept count (Kubernetes: Ignore).",
    )


class Placement(ApiModel):
    """Where engine pods go."""

    priority_class_name: _OptionalName = Field(
        default="", description="PriorityClass of the engine pods. Empty: none."
    )
    scheduler_name: _OptionalName = Field(
        default="", description="Scheduler of the engine pods. Empty: that of the cluster."
    )
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=8)] = Field(
        default=(),
        description="How engine pods spread over nodes or zones.",
        json_schema_extra=list_map("topologyKey", "whenUnsatisfiable"),
    )


class Disruption(ApiModel):
    """What node drains may take at once."""

    max_unavailable: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1,
        description="Engine pods that evictions may take at once. At least 1: with 0 a node could never be "
        "drained.",
    )
