"""What `transition` decides from, and what it decides: the words that its parts and `plan` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paceline.api import Refused, Shape, TransitionStatus
from paceline.fleet.actions import Event, Reshape
from paceline.fleet.in_place import Terms
from paceline.fleet.replicas import Surroundings
from paceline.fleet.roles import Roles
from paceline.fleet.variant import Inputs, Variant

REFUSED = "Refused"
"""By the launcher, before it loaded anything: a second attempt would end the same way."""

INFEASIBLE = "Infeasible"
"""By the facts of the checkpoint, before anything was made."""

UNSCHEDULABLE = "Unschedulable"
DEADLINE_EXCEEDED = "ReadyDeadlineExceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecreateTerms:
    """What the spec allows of a change by recreate, and what is known to speak against one."""

    enabled: bool
    is_planners: bool
    """The shape is the planner's, which does not weigh what such a change costs."""

    useless_nodes: frozenset[str]
    """Of those that the service's pods are on: no new pod may go there, or fit, were they empty."""

    leave_s: float
    """For a pod from its deletion until it is gone, its longest request included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    now_s: float
    generation: int
    variants: tuple[Variant, ...]
    target: str
    """Name of the variant that the spec asks for; it need not exist."""

    asked: Shape
    transition: TransitionStatus | None
    refused: Refused | None
    """Of this generation; an older refusal binds nobody."""

    refusal: Refused | None
    """What is known to speak against the target before anything of it is made."""

    inputs: Inputs
    """What the target's template is made from."""

    no_room_beside: bool
    """The planner has looked for free GPUs beside those that serve, and advises a change in place."""

    ready_deadline_s: float
    pending_deadline_s: float
    in_place: Terms
    recreate: RecreateTerms
    around: Surroundings

    def find(self, name: str | None) -> Variant | None:
        return next((one for one in self.variants if one.name == name), None)

    @property
    def target_pods(self) -> int:
        known = self.find(self.target)
        return self.asked.replicas if known is None else known.pods_for(self.asked.replicas)

    def asked_of(self, variant: Variant) -> int:
        """Pods that this variant owes. A number that was asked for another tensor-parallel size does not
        count."""
        same_size = variant.tensor_parallel_size == self.asked.tensor_parallel_size
        return variant.pods_for(self.asked.replicas) if same_size else variant.asked_replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    transition: TransitionStatus | None
    refused: Refused | None
    roles: Roles
    replicas: Mapping[str, int]
    """Pods by variant: every one that has a Deployment, and the target if it is to get one."""

    remove: tuple[str, ...] = ()
    destructive: frozenset[str] = frozenset()
    """Variants whose change must wait until the status with this transition is written."""

    reshape: tuple[Reshape, ...] = ()
    """Pods that are told another layout."""

    waiting: str | None = None
    """Why a change that the spec asks for has not begun, or a decrement has not been made."""

    events: tuple[Event, ...] = ()
