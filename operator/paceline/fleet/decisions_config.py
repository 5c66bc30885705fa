"""The ConfigMap NAME-decisions: the planner's last decisions in full, and what it has to remember.

Too long for the status, and read by few (`paceline explain`). Written when a decision is another one, else
every ten minutes at most; lost, it costs history and learned corrections, never safety.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from paceline.fleet.names import ENGINE, Names
from paceline.fleet.observed import ServiceMeta
from paceline.fleet.ownership import owner_reference

DECISIONS = "decisions.json"
STATE = "state.json"
LIMIT_BYTES = 256 * 1024
"""A ConfigMap may hold 1 MiB; the API server keeps all of them in memory."""

KEPT = 10


def decisions_name(service: str) -> str:
    return f"{service}-decisions"


def as_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def decisions_config(
    meta: ServiceMeta, *, decisions: Sequence[str], state: Mapping[str, Any]
) -> dict[str, Any]:
    """`decisions` as `as_text` gives them, newest first; the oldest that do not fit are left out."""
    memory = as_text(state)
    texts: list[str] = []
    room = LIMIT_BYTES - len(memory)
    for text in decisions[:KEPT]:
        room -= len(text) + 1
        if room < 0:
            break
        texts.append(text)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": decisions_name(meta.name),
            "namespace": meta.namespace,
            "labels": Names(meta.name).labels(ENGINE),
            "ownerReferences": [owner_reference(meta)],
        },
        "data": {DECISIONS: f"[{','.join(texts)}]", STATE: memory},
    }
