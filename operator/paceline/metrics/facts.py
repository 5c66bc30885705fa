"""What the cluster knows of a service, as far as reading its metrics needs it: the pods that must be heard.

The controller passes its own pods: `PodView` is the least of `fleet.Pod`. Without these facts an answer that
lacks half of the pods looks like half of the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from paceline.planner import Grant, InPlace, NodeGpus, Shape, StartTime
from paceline_core import Layout


class ServiceKey(Protocol):
    """How a service is named. Must be hashable."""

    @property
    def namespace(self) -> str: ...

    @property
    def name(self) -> str: ...

    def __hash__(self) -> int: ...


class PodView(Protocol):
    """One pod of a service."""

    @property
    def name(self) -> str: ...

    @property
    def component(self) -> str:
        """`engine` or `router`."""

    @property
    def tensor_parallel_size(self) -> int | None:
        """The label that its series bear. A change in place leaves it."""

    @property
    def serves_in(self) -> Layout | None:
        """The size that its figures are of, and the replicas that it counts for. None: unknown."""

    @property
    def changed_at_s(self) -> float | None:
        """Since when it can only have served in that; infinite: it does not serve. None: it never had another."""

    @property
    def ip(self) -> str | None: ...

    @property
    def created_at_s(self) -> float: ...

    @property
    def ready(self) -> bool: ...

    @property
    def ready_since_s(self) -> float | None: ...

    @property
    def deleting(self) -> bool: ...

    @property
    def finished(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """One service whose metrics are wanted."""

    pods: Sequence[PodView]
    """Engine and router pods, also those that start or leave."""

    load_must_be_known: bool = True
    """Whether pods are asked directly when Prometheus has not answered for long. False where nobody acts on
    the load (`Manual`, paused)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """The part of an observation that does not come from metrics."""

    pods: Sequence[PodView]
    nodes: tuple[NodeGpus, ...]
    quota_gpus: int | None = None
    grant: Grant | None = None
    start_times: tuple[StartTime, ...] = ()
    current: Shape | None = None
    replicas_per_pod: int = 1
    in_place: InPlace | None = None
    changing: bool = False
    refused: tuple[Shape, ...] = ()
    no_room_beside: tuple[Shape, ...] = ()
