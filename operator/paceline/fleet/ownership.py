"""Whose object is it: the owner reference that every child carries, and the test for it.

Owner references, not finalizers, remove the children: deleting a service leaves nothing also while the
operator is down, and nothing can hang.
"""

from __future__ import annotations

from typing import Any

from paceline.fleet.observed import RawObject, ServiceMeta


def owner_reference(meta: ServiceMeta) -> dict[str, Any]:
    return {
        "apiVersion": "paceline.dev/v1alpha1",
        "kind": "InferenceService",
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        # Foreground deletion of the service must not wait for drains that take half an hour.
        "blockOwnerDeletion": False,
    }


def is_owned(child: RawObject, *, by: ServiceMeta) -> bool:
    """By uid: a service that was deleted and made again under the same name does not own the old one's
    children."""
    references = child["metadata"].get("ownerReferences") or ()
    return any(ref.get("uid") == by.uid and ref.get("controller") for ref in references)


def is_deleting(child: RawObject) -> bool:
    return bool(child["metadata"].get("deletionTimestamp"))
