"""What holds for every node of the schema, so that no field slips in without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import Field

from paceline.api.base import ApiModel, list_set
from paceline.api.crd import Schema, SchemaError, _Writer, custom_resource_definition, structural_schema


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}".removeprefix("."))
    for key, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        if key in schema:
            yield from nodes(schema[key], path + suffix)


ALL = [(path, node) for path, node in nodes(structural_schema()) if path.startswith(("spec", "status"))]
FIELDS = [(path, node) for path, node in ALL if not path.endswith(("[]", ".*"))]


@pytest.mark.parametrize(("path", "node"), FIELDS, ids=[path for path, _ in FIELDS])
def test_every_field_says_what_it_is_for_in_a_sentence(path: str, node: Schema) -> None:
    assert node["description"][-1] == ".", path
    assert len(node["description"]) > 10, path


@pytest.mark.parametrize(("path", "node"), ALL, ids=[path for path, _ in ALL])
def test_everything_is_bounded_so_that_rules_have_a_cost(path: str, node: Schema) -> None:
    match node.get("type"):
        case "array":
            assert "maxItems" in node
            assert node["x-kubernetes-list-type"] in ("atomic", "set", "map")
        case "string":
            assert "maxLength" in node or "enum" in node
        case "object" if "properties" not in node:
            assert "maxProperties" in node
        case "integer":
            assert "minimum" in node
        case "number":
            pytest.fail("no floats in an API")
        case None:
            assert node["x-kubernetes-int-or-string"] is True


@pytest.mark.parametrize(("path", "node"), ALL, ids=[path for path, _ in ALL])
def test_nothing_unknown_is_kept(path: str, node: Schema) -> None:
    assert "x-kubernetes-preserve-unknown-fields" not in node
    assert not {"$ref", "title", "allOf", "x-paceline-says"} & node.keys()


def test_every_message_of_a_rule_says_what_to_write() -> None:
    for path, node in nodes(structural_schema()):
        for rule in node.get("x-kubernetes-validations", ()):
            message = rule["message"]
            assert any(way_out in message for way_out in ("write ", "leave ", "use ")), f"{path}: {message}"


def test_what_is_left_out_of_the_spec_is_filled_in_and_of_the_status_is_not() -> None:
    schema = structural_schema()
    optional = {"preset", "maxPromptTokens", "maxBatchedTokens", "stepMilliseconds", "maxSeconds"}
    for path, node in nodes(schema["properties"]["spec"], "spec"):
        for name, child in node.get("properties", {}).items():
            if name in node.get("required", ()) or child.get("type") == "object":
                continue
            if path.endswith(("tolerations[]", "topologySpreadConstraints[]", "env[]")) or name in optional:
                continue
            assert "default" in child, f"{path}.{name}"
    assert not [path for path, node in nodes(schema["properties"]["status"], "status") if "default" in node]


def test_the_definition_has_what_people_and_autoscalers_ask_for() -> None:
    spec = custom_resource_definition()["spec"]
    version = spec["versions"][0]
    assert spec["names"]["shortNames"] == ["pis"]
    assert spec["names"]["categories"] == ["all", "paceline"]
    assert version["subresources"]["status"] == {}
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.scaling.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    plain = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert plain == ["Ready", "Replicas", "TP", "GPUs", "TTFT", "TPOT", "Reason", "Age"]


class Unbounded(ApiModel):
    text: str = "a"


class UnboundedList(ApiModel):
    items: tuple[int, ...] = Field(default=(), json_schema_extra=list_set())


class ListWithoutAType(ApiModel):
    items: Annotated[tuple[int, ...], Field(max_length=1)] = ()


class UnboundedMap(ApiModel):
    labels: dict[str, str] = Field(default_factory=dict)


class TwoTypes(ApiModel):
    value: int | bool = 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Unbounded, "spec.text: a text without a bound"),
        (UnboundedList, "spec.items: a list without a bound"),
        (ListWithoutAType, "spec.items: a list without a type"),
        (UnboundedMap, "spec.labels: a map without a bound"),
        (TwoTypes, "spec.value: no single type"),
    ],
)
def test_a_field_that_the_api_server_could_not_hold_is_refused_when_it_is_written(
    model: type[ApiModel], message: str
) -> None:
    source: dict[str, Any] = model.model_json_schema(by_alias=True)
    with pytest.raises(SchemaError, match=message):
        _Writer(source.get("$defs", {})).write(source, path="spec", defaults=True)
