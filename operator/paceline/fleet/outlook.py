"""What a plan has worked out about a service, before it is put into words for the status."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.api import Shape, StragglerStatus
from paceline.fleet.autoscaling import Autoscaling
from paceline.fleet.foreign import ForeignField
from paceline.fleet.observed import Observed, Pod
from paceline.fleet.situation import Decision
from paceline.fleet.variant import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    observed: Observed
    asked: Shape
    autoscaling: Autoscaling
    decision: Decision
    variants: tuple[Variant, ...]
    foreign: tuple[ForeignField, ...]
    taken_names: tuple[str, ...]
    """`Kind name` of objects in the way of a child, that are not ours."""

    ready_routers: int
    router_rolling: bool
    outer_drain_limit_s: int
    ignored_scale_writer: str | None
    """Who wrote /scale although the mode does not follow it."""

    last_straggler: StragglerStatus | None

    @property
    def engine_pods(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.observed.pods if pod.component == "engine")

    @property
    def serving(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.engine_pods if pod.serving)

    @property
    def serving_replicas(self) -> int:
        """A pod that was changed in place holds several."""
        return sum(pod.groups for pod in self.serving)

    @property
    def due_replicas(self) -> int:
        """Those that are asked for, in whole pods of the variant that stays."""
        current, asked = self.decision.roles.current, self.asked
        if current is None or current.tensor_parallel_size != asked.tensor_parallel_size:
            return asked.replicas
        return current.pods_for(asked.replicas) * current.layout.data_parallel_size

    @property
    def starting(self) -> tuple[Pod, ...]:
        return tuple(
            pod for pod in self.engine_pods if not pod.ready and not pod.deleting and not pod.finished
        )

    @property
    def draining(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.engine_pods if pod.deleting)
