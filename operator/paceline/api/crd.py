"""The CustomResourceDefinition, made from the models: the one place where they become what the API server
enforces.
 Called by `paceline crds`, which writes the file and the chart's copy, and by the test that fails on drift.
It turns pydantic's JSON schema into a *structural* schema: no references, no `additionalProperties: false`
(the API server prunes or refuses unknown fields by itself), no null beside a type (it prunes nulls), bounds
on everything that CEL walks over. It does not touch files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from paceline.api.base import GROUP, KIND, MAX_NAME_LENGTH, PLURAL, RULES, SAYS, VERSION
from paceline.api.service import InferenceService

Schema = dict[str, Any]

FILE_NAME: Final = f"{GROUP}_{PLURAL}.yaml"
_WRITTEN: Final = "# Written by `paceline crds` from operator/paceline/api. Do not edit: change the models.\n"
_INT32_MAX: Final = 2**31 - 1

_COLUMNS: Final = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether it answers requests.", 0),
    ("Replicas", "string", ".status.summary.replicas", "Ready and desired replicas.", 0),
    ("TP", "integer", ".status.shape.current.tensorParallelSize", "GPUs that one replica spans.", 0),
    ("GPUs", "integer", ".status.gpus.serving", "GPUs of the pods that serve.", 0),
    ("TTFT", "string", ".status.summary.timeToFirstToken", "Time to first token, measured/target.", 0),
    ("TPOT", "string", ".status.summary.timePerOutputToken", "Time per output token, measured/target.", 0),
    ("Reason", "string", ".status.summary.reason", "Why it is as it is.", 0),
    ("Age", "date", ".metadata.creationTimestamp", "", 0),
    ("Mode", "string", ".spec.scaling.mode", "Who sets the shape.", 1),
    ("Model", "string", ".spec.model.uri", "Where the weights come from.", 1),
)
"""Name, type, path, description, priority: 1 shows with `-o wide` alone."""


class SchemaError(TypeError):
    """A model that has no structural schema. The message names the field and says what the model must say."""


def custom_resource_definition() -> Schema:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["pis"],
                "categories": ["all", "paceline"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.scaling.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": structural_schema()},
                }
            ],
        },
    }


def structural_schema() -> Schema:
    """Of the whole object: apiVersion, kind and metadata as the API server has them, spec and status as
    ours."""
    source = InferenceService.model_json_schema(by_alias=True)
    writer = _Writer(source.get("$defs", {}))
    return {
        "type": "object",
        "description": source["description"],
        "required": ["spec"],
        RULES: source[RULES],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema: paceline.dev/v1alpha1."},
            "kind": {"type": "string", "description": "Kind of the object: InferenceService."},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": MAX_NAME_LENGTH}},
            },
            "spec": writer.write(source["properties"]["spec"], path="spec", defaults=True),
            "status": writer.write(source["properties"]["status"], path="status", defaults=False),
        },
    }


def crd_yaml() -> str:
    """The text of crds/paceline.dev_inferenceservices.yaml."""
    return _WRITTEN + _dump(custom_resource_definition())


def chart_yaml() -> str:
    """The same as a template of the chart: upgraded with it, and kept when it is uninstalled.

    Files of a chart's crds/ folder are installed once and never upgraded; a template is. Deleting a CRD
    deletes every service, hence `keep`.
    """
    definition = custom_resource_definition()
    definition["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    text = _dump(definition).replace("{{", '{{ "{{" }}')
    labels = '  labels: {{- include "paceline.labels" . | nindent 4 }}\n'
    head, name, rest = text.partition(f"  name: {PLURAL}.{GROUP}\n")
    return f"{_WRITTEN}{{{{- if .Values.crds.install }}}}\n{head}{name}{labels}{rest}{{{{- end }}}}\n"


def _dump(body: Schema) -> str:
    return yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=110)


def _column(name: str, kind: str, path: str, description: str, priority: int) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    if priority:
        column["priority"] = priority
    return column


class _Writer:
    """Turns one node of pydantic's schema into one of a structural schema, and its children with it."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def write(self, node: Schema, *, path: str, defaults: bool) -> Schema:
        """`defaults` False leaves them out: the API server must not fill a status that nobody has written."""
        node, optional = self._resolved(node)
        out: Schema = {}
        if "description" in node:
            out["description"] = node["description"]
        if node.get("x-kubernetes-int-or-string"):
            out |= {"x-kubernetes-int-or-string": True, "anyOf": node["anyOf"]}
        elif "type" not in node:
            raise SchemaError(f"{path}: no single type: give the field one type, or None beside one")
        else:
            out["type"] = node["type"]
        for key in (
            "format",
            "minLength",
            "maxLength",
            "pattern",
            "minimum",
            "maximum",
            "minItems",
            "maxItems",
        ):
            if key in node:
                out[key] = node[key]
        for key, value in node.items():
            if key.startswith("x-kubernetes-list-"):
                out[key] = value
        rules = list(node.get(RULES, ()))
        match out.get("type"):
            case None:
                matches = f"self.matches({_cel_string(out.pop('pattern'))})"
                rules.append({"rule": f"type(self) == int ? self >= 0 : {matches}", "message": node[SAYS]})
            case "object":
                rules += self._write_object(node, out, path=path, defaults=defaults)
            case "array":
                self._write_array(node, out, path=path, defaults=defaults)
            case "integer":
                self._bound_integer(out, path=path)
            case "string":
                rules += self._write_string(node, out, path=path)
        if rules:
            out[RULES] = rules
        if defaults and not optional and "default" in node and node["default"] is not None:
            out["default"] = node["default"]
        return out

    def _resolved(self, node: Schema) -> tuple[Schema, bool]:
        """Without references and null; and whether null was allowed, that is, whether the field may be
        absent."""
        optional = False
        while True:
            if "$ref" in node:
                rest = {key: value for key, value in node.items() if key != "$ref"}
                node = {**self._definitions[node["$ref"].rpartition("/")[2]], **rest}
            elif len(node.get("allOf", ())) == 1:
                node = {**node["allOf"][0], **{key: value for key, value in node.items() if key != "allOf"}}
            elif {"type": "null"} in node.get("anyOf", ()):
                choices = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
                rest = {key: value for key, value in node.items() if key != "anyOf"}
                node = {**choices[0], **rest} if len(choices) == 1 else {**rest, "anyOf": choices}
                optional = True
            else:
                return node, optional

    def _write_object(self, node: Schema, out: Schema, *, path: str, defaults: bool) -> list[Schema]:
        if "properties" in node:
            required = node.get("required", [])
            if required:
                out["required"] = required
            out["properties"] = {
                name: self._write_property(
                    child, path=f"{path}.{name}", defaults=defaults and name not in required
                )
                if name not in required
                else self.write(child, path=f"{path}.{name}", defaults=defaults)
                for name, child in node["properties"].items()
            }
            return []
        if "maxProperties" not in node:
            raise SchemaError(f"{path}: a map without a bound: give the field max_length")
        out["maxProperties"] = node["maxProperties"]
        patterns = node.get("patternProperties", {})
        pattern, values = next(iter(patterns.items())) if patterns else (None, node["additionalProperties"])
        out["additionalProperties"] = self.write(values, path=f"{path}.*", defaults=defaults)
        checks = []
        longest = node.get("propertyNames", {}).get("maxLength")
        if longest is not None:
            checks.append(f"key.size() <= {longest}")
        if pattern is not None:
            checks.append(f"key.matches({_cel_string(pattern)})")
        if not checks:
            return []
        return [
            {
                "rule": f"self.all(key, {' && '.join(checks)})",
                "message": "a key is not a qualified name: write a name such as memory or example.com/name",
            }
        ]

    def _write_property(self, child: Schema, *, path: str, defaults: bool) -> Schema:
        """A field that may be left out. An object whose fields all have defaults gets them as a whole: with a
        bare {} the API server would judge the rules of the object before it fills its fields."""
        out = self.write(child, path=path, defaults=defaults)
        resolved, optional = self._resolved(child)
        if defaults and not optional and "default" not in out and out.get("type") == "object":
            if resolved.get("required"):
                raise SchemaError(
                    f"{path}: no default has its required fields: make the field required or None"
                )
            fields = out.get("properties", {})
            out["default"] = {name: field["default"] for name, field in fields.items() if "default" in field}
        return out

    def _write_array(self, node: Schema, out: Schema, *, path: str, defaults: bool) -> None:
        if "maxItems" not in out:
            raise SchemaError(f"{path}: a list without a bound: give the field max_length")
        if "x-kubernetes-list-type" not in out:
            raise SchemaError(f"{path}: a list without a type: say list_map, list_set or list_atomic")
        out["items"] = self.write(node["items"], path=f"{path}[]", defaults=defaults)

    def _bound_integer(self, out: Schema, *, path: str) -> None:
        if "minimum" not in out:
            raise SchemaError(f"{path}: a number without a lower bound: give the field ge")
        out["format"] = "int32" if out.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"

    def _write_string(self, node: Schema, out: Schema, *, path: str) -> list[Schema]:
        values = node.get("enum", [node["const"]] if "const" in node else None)
        says = node.get(SAYS)
        if values is not None and says is not None:
            out["maxLength"] = 64
            return [{"rule": f"self in [{', '.join(_cel_string(v) for v in values)}]", "message": says}]
        if values is not None:
            out["enum"] = values
            return []
        if "maxLength" not in out:
            raise SchemaError(f"{path}: a text without a bound: give the field max_length")
        if says is None:
            return []
        return [{"rule": f"self.matches({_cel_string(out.pop('pattern'))})", "message": says}]


def _cel_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
