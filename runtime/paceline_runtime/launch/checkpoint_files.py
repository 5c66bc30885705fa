"""Facts of the checkpoint in a folder: the reading half of `paceline_core.checkpoint`, which judges and
does no I/O."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paceline_core import CheckpointFacts, file_format_of, weights_bytes_of_header, weights_bytes_of_index

INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100 * 1024**2
"""The safetensors format's own limit."""


def read_facts(folder: Path) -> CheckpointFacts:
    """What config.json, the index and the headers tell; None for what they do not."""
    return CheckpointFacts.parse(
        read_json(folder / "config.json"),
        weights_bytes=_weights_bytes(folder),
        file_format=file_format_of(path.name for path in folder.iterdir()),
    )


def read_json(path: Path) -> Mapping[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, Mapping) else None


def _weights_bytes(folder: Path) -> int | None:
    index = read_json(folder / INDEX)
    if index is not None:
        return weights_bytes_of_index(index)
    sizes = [_tensor_bytes(path) for path in folder.glob("*.safetensors")]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def _tensor_bytes(path: Path) -> int | None:
    """From the header of a safetensors file: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            return None
        (length,) = struct.unpack("<Q", prefix)
        if length > _MAX_HEADER_BYTES:
            return None
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return None
    return weights_bytes_of_header(header) if isinstance(header, Mapping) else None
