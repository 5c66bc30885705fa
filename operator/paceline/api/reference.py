"""docs/api.md, made from the same schema that the API server enforces, so that the two cannot differ.

Called by `paceline api-docs` and by the test that fails on drift. It returns text and touches no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from paceline.api.base import API_VERSION, KIND, RULES
from paceline.api.crd import Schema, structural_schema

_INTRO: Final = f"""\
<!-- Written by `paceline api-docs` from operator/paceline/api. Do not edit: change the models. -->

# {KIND}, {API_VERSION}

One object is one LLM service. `kubectl explain inferenceservice.spec` shows the same text; short name `pis`.

```yaml
apiVersion: {API_VERSION}
kind: {KIND}
metadata:
  name: smollm2
spec:
  model:
    uri: bundled://smollm2-135m-instruct
  scaling:
    replicas: 1
    tensorParallelSize: 1
  accelerator:
    resourceName: cpu
```

More to start from: [examples/](../examples).

* **Unknown fields.** `kubectl` asks for strict validation, and the API server refuses a field that it does
  not know. A client that does not ask (`--validate=ignore`, most client libraries) has it pruned before
  anything sees it.
* **Refusals.** What the API server can decide, it refuses at once, and the message names the field and says
  what to write. What depends on the checkpoint (heads, quantization groups, memory) is decided before
  anything is loaded and stands in `status.refused` and in the conditions; pods that run stay as they are.
* **Scale.** `kubectl scale pis NAME --replicas=N` writes `spec.scaling.replicas`.
* **A good request** is answered 2xx and to its end, its first token came within the target for the length of
  its prompt, and its mean time per output token after the first is within the target. Answered in one piece,
  it is good if it took no longer than both targets together: first token + (output tokens − 1) × time per
  token. Requests refused for their own fault (400, 401, 403, 404, 413, 422) do not count, nor those that the
  client gave up before the first token was due; every other one that was not good is a miss.
"""

_SECTION_ORDER: Final = (
    "model",
    "scaling",
    "accelerator",
    "slo",
    "admission",
    "runtime",
    "router",
    "endpoint",
    "placement",
    "disruption",
    "transition",
    "observability",
)


def api_reference() -> str:
    schema = structural_schema()
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    sections = spec["properties"]
    missing = set(_SECTION_ORDER) ^ {name for name, part in sections.items() if "properties" in part}
    if missing:
        raise LookupError(f"{sorted(missing)}: name each object of spec once in _SECTION_ORDER")
    plain = {name: part for name, part in sections.items() if name not in _SECTION_ORDER}
    parts = [_INTRO, "## spec\n", _table({"properties": plain})]
    for name in _SECTION_ORDER:
        needed = " Required." if name in spec["required"] else ""
        parts += [f"## spec.{name}\n", f"{sections[name]['description']}{needed}\n", _table(sections[name])]
    parts += [
        "## Rules\n",
        "What the API server refuses beyond types and bounds, and what it says.\n",
        _rules(schema),
        "## status\n",
        f"{status['description']} Written by the operator alone; what is not known is absent.\n",
        _table(status, with_defaults=False),
    ]
    return "\n".join(parts)


def _table(part: Schema, *, with_defaults: bool = True) -> str:
    columns = ("Field", "Type", "Default", "Description")
    rows = [columns, ("---",) * len(columns), *_rows(part, prefix="")]
    if not with_defaults:
        rows = [(name, kind, text) for name, kind, _, text in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(part: Schema, *, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    required = part.get("required", ())
    for name, field in part["properties"].items():
        default = "**required**" if name in required else _default(field)
        yield f"`{prefix}{name}`", _type(field), default, _cell(field.get("description", ""))
        if "properties" in field:
            yield from _rows(field, prefix=f"{prefix}{name}.")
        elif "properties" in field.get("items", {}):
            yield from _rows(field["items"], prefix=f"{prefix}{name}[].")


def _type(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    match field["type"]:
        case "array":
            keys = ", ".join(field.get("x-kubernetes-list-map-keys", ()))
            by = f" by {keys}" if keys else ""
            return f"list of {_type(field['items'])}{by}, at most {field['maxItems']}"
        case "object":
            return "object" if "properties" in field else f"map to {_type(field['additionalProperties'])}"
        case "integer" if "maximum" in field:
            return f"integer, {field['minimum']} to {field['maximum']}"
        case "integer":
            return f"integer, at least {field['minimum']}"
        case "string" if "enum" in field:
            return " \\| ".join(field["enum"])
        case "string" if field.get("format") == "date-time":
            return "time"
    return str(field["type"])


def _default(field: Schema) -> str:
    """Objects show the defaults of their fields."""
    if "default" not in field or "properties" in field:
        return ""
    return f"`{json.dumps(field['default'])}`"


def _rules(schema: Schema) -> str:
    said = dict.fromkeys(_walk(schema, path=""))
    return "".join(f"* `{path}`: {_cell(message)}.\n" for path, message in said)


def _walk(node: Schema, *, path: str) -> Iterator[tuple[str, str]]:
    for rule in node.get(RULES, ()):
        where, message = path + rule.get("fieldPath", ""), rule["message"]
        if not where:
            # A rule of the whole object names its field itself.
            where, _, message = message.partition(": ")
        yield where, message
    for name, child in node.get("properties", {}).items():
        yield from _walk(child, path=f"{path}.{name}".removeprefix("."))
    if "items" in node:
        yield from _walk(node["items"], path=f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _walk(node["additionalProperties"], path=f"{path}.*")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
