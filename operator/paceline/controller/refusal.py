"""The status of a service whose spec cannot be read: one that got past the API server's schema. Pure.

It happens with an older CRD in the cluster, or an object written before a rule existed. The pods stay as
they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from paceline.fleet import Event

REASON = "InvalidSpec"


def invalid_spec_status(
    raw: Mapping[str, Any], error: ValidationError, *, now_s: float
) -> tuple[dict[str, Any], Event | None]:
    """The whole status, with Ready=False for this generation, and an event if that is news."""
    before: dict[str, Any] = dict(raw.get("status") or {})
    message = sentence_of(error)
    generation = raw["metadata"]["generation"]
    conditions = [dict(c) for c in before.get("conditions") or ()]
    old = next((c for c in conditions if c["type"] == "Ready"), None)
    same_status = old is not None and old["status"] == "False"
    since = old["lastTransitionTime"] if old is not None and same_status else _timestamp(now_s)
    ready = {
        "type": "Ready",
        "status": "False",
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": REASON,
        "message": message,
    }
    news = old is None or {**old, "lastTransitionTime": since} != ready
    after = {
        **before,
        "observedGeneration": generation,
        "conditions": [*(c for c in conditions if c["type"] != "Ready"), ready],
        "summary": {**(before.get("summary") or {}), "reason": REASON},
    }
    return after, Event(type="Warning", reason=REASON, message=message) if news else None


def sentence_of(error: ValidationError) -> str:
    """The fields at fault and what to write there, at most three of them."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'spec'}: {fault['msg']}" for fault in faults[:3]
    ]
    if len(faults) > 3:
        texts.append(f"and {len(faults) - 3} more")
    return "; ".join(texts)[:1024]


def _timestamp(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
