"""The timing tables that ship with the package, and their form as JSON.

Planner, simulator and emulated engine ask here for the prior of a (model, format, GPU); `paceline timing build`
writes the files. A table that is not shipped is an error that names those that are: `roofline` then estimates.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any, Final

from paceline_core.timing import StepTiming, TimingTable

_FOLDER: Final = files("paceline_core") / "tables"


class UnknownTable(LookupError):
    """No table is shipped for this model, format and GPU."""


@cache
def load_table(model: str, format: str, gpu: str) -> TimingTable:
    """The shipped table; `h100_sxm` is another name of `h100`."""
    key = (model, format, gpu.removesuffix("_sxm"))
    if key not in shipped_tables():
        raise UnknownTable(_what_exists(*key))
    return table_from_json((_FOLDER / table_file_name(*key)).read_text(encoding="utf-8"))


@cache
def shipped_tables() -> tuple[tuple[str, str, str], ...]:
    """(model, format, GPU) of each table, sorted."""
    names = (entry.name.removesuffix(".json") for entry in _FOLDER.iterdir() if entry.name.endswith(".json"))
    return tuple(sorted((model, format, gpu) for model, format, gpu in (name.split("_") for name in names)))


def table_file_name(model: str, format: str, gpu: str) -> str:
    return f"{model}_{format}_{gpu}.json"


def table_to_json(table: TimingTable) -> str:
    """One line for each size, so that a difference can be read."""
    head = {key: getattr(table, key) for key in ("model", "format", "gpu", "source", "provenance")}
    sizes = (
        f"    {json.dumps(str(size))}: {json.dumps(asdict(step), separators=(',', ':'))}"
        for size, step in sorted(table.by_tensor_parallel_size.items())
    )
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
    return "\n".join(["{", *lines, '  "by_tensor_parallel_size": {', ",\n".join(sizes), "  }", "}", ""])


def table_from_json(text: str) -> TimingTable:
    """The reverse of `table_to_json`; ValueError where the text is not a table."""
    read: dict[str, Any] = json.loads(text)
    try:
        sizes = read.pop("by_tensor_parallel_size")
        return TimingTable(
            **read, by_tensor_parallel_size={int(size): _step(step) for size, step in sizes.items()}
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a timing table: {error}") from error


def _step(read: dict[str, Any]) -> StepTiming:
    return StepTiming(**{**read, "knot_tokens": tuple(read["knot_tokens"]), "knot_s": tuple(read["knot_s"])})


def _what_exists(model: str, format: str, gpu: str) -> str:
    """The nearest part that exists: of the model, else of all."""
    shipped = shipped_tables()
    same_model = [f"{f} on {g}" for m, f, g in shipped if m == model]
    if same_model:
        return f"no timing table of {model} in {format} on {gpu}: there is {', '.join(same_model)}"
    models = ", ".join(sorted({m for m, _, _ in shipped}))
    return f"no timing table of the model {model}: there is {models}"
