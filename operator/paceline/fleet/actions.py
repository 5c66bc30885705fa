"""What the controller carries out: server-side applies, deletes, a status, events.

Order of execution, for the controller:

1. If `plan.status_first`: write `plan.status` first, with the resourceVersion of the service that was
   observed. If that is refused (somebody else wrote), do nothing else and plan again: two operators never
   both act.
2. The applies in order, then what pods are told, then the deletes. One that fails stops neither the others nor the status, except
   that a failed apply with `status_first` stops the later actions with that mark, and what pods are told.
3. Write `plan.status` if not yet written and different from the observed one; then the events.
4. Plan again after `requeue_after_s`, or earlier when anything that was observed changes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from paceline_core import LAYOUT_ANNOTATION, LayoutOrder

if TYPE_CHECKING:
    from paceline.api import InferenceServiceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply of one full object under the field manager `paceline`."""

    object: Mapping[str, Any]
    priority: int
    """Lower goes first. The applies of a plan are sorted by it; a controller that must wait may also order
    by it across services, so that what starts pods comes before what only surrounds them."""

    force: bool = False
    """Take over the fields of other managers: only after the grace time of a foreign writer."""

    must_be_absent: bool = False
    """No such object was observed. The controller reads it by name just before; if one is there after all, it
    does not apply but observes again with that object among the children."""

    uid: str | None = None
    """The observed child: never applied onto another object of the same name that came in between."""

    resource_version: str | None = None
    """Set where the step is safe only if the child is exactly as observed (a decrement of replicas)."""

    status_first: bool = False

    @property
    def kind(self) -> str:
        return str(self.object["kind"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    def body(self) -> dict[str, Any]:
        """The object to send, with the preconditions in its metadata, where the API server checks them."""
        body = copy.deepcopy(dict(self.object))
        if self.uid is not None:
            body["metadata"]["uid"] = self.uid
        if self.resource_version is not None:
            body["metadata"]["resourceVersion"] = self.resource_version
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete one child, or one engine pod, with background propagation and `preconditions.uid`."""

    api_version: str
    kind: str
    name: str
    uid: str
    status_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    """Tell one engine pod its layout, by an annotation. The status goes first."""

    name: str
    uid: str
    order: LayoutOrder
    kind: Literal["Pod"] = "Pod"
    status_first: Literal[True] = True

    def body(self) -> dict[str, Any]:
        """A merge patch; the UID is a precondition."""
        return {"metadata": {"uid": self.uid, "annotations": {LAYOUT_ANNOTATION: str(self.order)}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One Kubernetes event on the service. A plan holds one only where a condition changes or an action is
    taken."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    apply: tuple[Apply, ...] = ()
    reshape: tuple[Reshape, ...] = ()
    delete: tuple[Delete, ...] = ()
    status: InferenceServiceStatus
    events: tuple[Event, ...] = ()
    requeue_after_s: float | None = None
    """Seconds until time alone changes the plan (a deadline, a grace); None where only the cluster can."""

    @property
    def status_first(self) -> bool:
        """Whether the status must be written, compare-and-swap, before any action."""
        changes: tuple[Apply | Reshape | Delete, ...] = (*self.apply, *self.reshape, *self.delete)
        return any(one.status_first for one in changes)
