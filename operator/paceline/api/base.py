"""What every model of the API shares: names in camelCase outside, snake_case inside, nothing unknown, nothing
mutable.

Every file of `paceline.api` builds on this one. It holds no field of its own, and it does no I/O.

A field may carry a `Rule` (CEL, run by the API server) next to the checks that pydantic runs. Where a plain
`pattern` or `enum` would only tell what is wrong, `says(...)` makes the schema writer turn it into a rule
whose message tells what to write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

RULES = "x-kubernetes-validations"
SAYS = "x-paceline-says"
"""Marker that the schema writer consumes: the message that replaces the bare `pattern` or `enum` of a
field."""

GROUP = "paceline.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "InferenceService"
PLURAL = "inferenceservices"
MAX_NAME_LENGTH = 40
"""The names of children are longer than the service's: 63 characters of a label minus the longest suffix."""


class ApiModel(BaseModel):
    """A part of the spec: an unknown field is an error, as the API server has it under
    `fieldValidation=Strict`."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
    )

    @classmethod
    def from_manifest(cls, body: object) -> Self:
        """Read what the API server or a YAML file holds: camelCase names only."""
        return cls.model_validate(body, by_alias=True, by_name=False)

    def to_manifest(self) -> dict[str, Any]:
        """The JSON form, camelCase, without the fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """A part of the status. An unknown field is left out, not refused: status is written by the operator, and
    the operator that reads it may be the older of two during an upgrade. The API server has pruned typing
    errors."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule.

    `field_path` is relative to the object that carries the rule (".replicas"); the API server reports the
    error on that field and shows its path before the message, which says what to write instead.
    """

    cel: str
    message: str
    field_path: str | None = None

    def to_schema(self) -> JsonDict:
        schema: JsonDict = {"rule": " ".join(self.cel.split()), "message": self.message}
        if self.field_path is not None:
            schema["fieldPath"] = self.field_path
        return schema


def rules(*some: Rule) -> JsonDict:
    """For `json_schema_extra` of a model or a field."""
    return {RULES: [rule.to_schema() for rule in some]}


def says(message: str) -> JsonDict:
    """For `json_schema_extra` of a field whose bare `pattern` or `enum` would not tell what to write."""
    return {SAYS: message}


def list_map(*keys: str) -> JsonDict:
    """For `json_schema_extra` of a list whose items are told apart by these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def list_set() -> JsonDict:
    """For `json_schema_extra` of a list of distinct scalars."""
    return {"x-kubernetes-list-type": "set"}


def list_atomic() -> JsonDict:
    """For `json_schema_extra` of a list that one writer owns as a whole."""
    return {"x-kubernetes-list-type": "atomic"}


DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
QUALIFIED_NAME = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"

ObjectName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN),
    Field(
        json_schema_extra=says(
            "write the name of an object of the same namespace: lower case letters, digits, '-' and '.'"
        )
    ),
]
LabelKey = Annotated[str, StringConstraints(max_length=317, pattern=QUALIFIED_NAME)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=LABEL_VALUE)]


class LocalObjectReference(ApiModel):
    """The name of an object in the namespace of the service."""

    name: ObjectName = Field(description="Name of the object, in the namespace of the service.")
