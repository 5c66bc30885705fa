"""Which fields of ours other managers hold, since when, and which applies it is pointless to send again.

The writer records what the API server answered; the reconciler passes it to the plan, which decides about
grace and force. Nothing here is lost by a restart: the first apply is refused again, and the time of the
first sight is the transition time of the ForeignWriter condition in the status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from paceline.api import InferenceServiceStatus
from paceline.controller.errors import ForeignFields
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import ChildKey, Conflict
from paceline.fleet.observed import unix_s


@dataclass(frozen=True, slots=True)
class Attempt:
    """One apply to one state of one child: the answer would be the same again."""

    uid: str
    resource_version: str
    digest: str


@dataclass(slots=True)
class _Child:
    conflicts: dict[str, Conflict]
    refused: Attempt


class ConflictBook:
    def __init__(self) -> None:
        self._services: dict[ServiceKey, dict[ChildKey, _Child]] = {}

    def of(self, key: ServiceKey) -> tuple[Conflict, ...]:
        children = self._services.get(key, {})
        return tuple(conflict for child in children.values() for conflict in child.conflicts.values())

    def is_refused(self, key: ServiceKey, child: ChildKey, attempt: Attempt) -> bool:
        known = self._services.get(key, {}).get(child)
        return known is not None and known.refused == attempt

    def record(
        self,
        key: ServiceKey,
        child: ChildKey,
        *,
        foreign: Iterable[ForeignFields],
        attempt: Attempt,
        now_s: float,
        status: InferenceServiceStatus | None,
    ) -> bool:
        """Whether the plan learns something from it."""
        before = self._services.get(key, {}).get(child)
        earlier = before.conflicts if before is not None else {}
        since_s = min(now_s, _condition_since_s(status) or now_s)
        conflicts = {
            one.manager: Conflict(
                kind=child[0],
                name=child[1],
                manager=one.manager,
                fields=one.fields,
                first_seen_s=earlier[one.manager].first_seen_s if one.manager in earlier else since_s,
            )
            for one in foreign
        }
        self._services.setdefault(key, {})[child] = _Child(conflicts=conflicts, refused=attempt)
        return conflicts != earlier

    def clear(self, key: ServiceKey, child: ChildKey) -> bool:
        """The child is as wanted, or gone. Whether there was anything to clear."""
        children = self._services.get(key)
        if children is None or child not in children:
            return False
        del children[child]
        if not children:
            del self._services[key]
        return True

    def keep_only(self, key: ServiceKey, children: Mapping[ChildKey, Any]) -> None:
        """Children that no longer exist hold no fields."""
        for child in [child for child in self._services.get(key, {}) if child not in children]:
            self.clear(key, child)

    def forget(self, key: ServiceKey) -> None:
        self._services.pop(key, None)


def _condition_since_s(status: InferenceServiceStatus | None) -> float | None:
    condition = status.condition("ForeignWriter") if status is not None else None
    if condition is None or condition.status != "True":
        return None
    return unix_s(condition.last_transition_time)
