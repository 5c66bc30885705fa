"""Whether a child already is what a plan wants it to be, so that the steady state writes nothing. Pure.

Two questions, because neither answers alone:

* Was this very object the last that we applied? Its digest stands in an annotation of the child. A field
that the
  plan no longer has is noticed by this one only.
* Does the child still hold every value that the plan wants? A foreign change is noticed by this one only.
What others
  added beside our fields does not matter: a server-side apply would not touch it either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

ANNOTATION_APPLIED = "paceline.dev/applied"
"""On every child: digest of the object as the operator last applied it."""

_VOLATILE_METADATA = ("managedFields", "resourceVersion", "generation")


def digest_of(desired: Mapping[str, Any]) -> str:
    text = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_digest_of(live: Mapping[str, Any]) -> str:
    """Of what people and controllers set in an object, without its status and bookkeeping."""
    meta = {key: value for key, value in live["metadata"].items() if key not in _VOLATILE_METADATA}
    return digest_of({**{k: v for k, v in live.items() if k != "status"}, "metadata": meta})


def is_applied(live: Mapping[str, Any], *, digest: str) -> bool:
    return (live["metadata"].get("annotations") or {}).get(ANNOTATION_APPLIED) == digest


def holds(live: Any, desired: Any) -> bool:
    """Every value of `desired` stands in `live`.

    Lists of named things are matched by name, others position by position. The API server writes some
    values in a form of its own ("1000m" becomes "1"): those look different here, and the caller remembers
    them.
    """
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return not desired and live is None
        return all(holds(live.get(key), value) for key, value in desired.items())
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            return not desired and live is None
        if desired and all(isinstance(item, Mapping) and "name" in item for item in desired):
            by_name = {item.get("name"): item for item in live if isinstance(item, Mapping)}
            return all(holds(by_name.get(item["name"]), item) for item in desired)
        return len(live) == len(desired) and all(map(holds, live, desired))
    return bool(live == desired)
