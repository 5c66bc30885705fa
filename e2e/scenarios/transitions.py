"""The kinds of transitions of a service: from which shapes each may begin, where it ends, and what its pods do meanwhile.

Called by the campaigns (`campaign.Stage` plays them). The shapes are few enough that two services of a family fit the
eight GPUs of a node at every moment of every transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from e2e.scenarios.faults import (
    A_NODE_THAT_IS_NOT_THERE,
    AN_ENGINE_THAT_DIES_ON_LOAD,
    AN_IMAGE_THAT_IS_NOT_THERE,
    Spec,
)
from e2e.scenarios.tenant import A_70B

ASKED: Final = "Asked"
"""The API server took the change; the operator has not seen it."""

COMING: Final = "Coming"
"""A pod of it is there and not Ready."""

LEAVING: Final = "Leaving"
"""A pod of it is on its way out."""


@dataclass(frozen=True, slots=True)
class Shape:
    replicas: int
    tensor_parallel_size: int

    @property
    def spec(self) -> Spec:
        return {
            "scaling": {"replicas": self.replicas, "tensorParallelSize": self.tensor_parallel_size},
        }


ONE, TWO, WIDE = Shape(1, 1), Shape(2, 1), Shape(1, 3)
WHOLE, DIVIDED = Shape(2, 2), Shape(4, 1)
"""Of the same two pods of two GPUs each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    name: str
    ends: Mapping[Shape, Shape]
    """By the shape that it begins from."""

    steps: tuple[str, ...]
    """In their order. What `status.transition` names is written by the operator, the rest is seen on the pods."""

    moving: Literal["coming", "leaving", "staying"]
    """The pods whose streams are at stake."""

    impossible: tuple[Spec, ...] = ()
    """It asks for one of these instead of another shape, and takes it back once the operator has."""

    @property
    def written_steps(self) -> tuple[str, ...]:
        """Those of `status.transition`."""
        return tuple(step for step in self.steps if step not in (ASKED, COMING, LEAVING))


UP = Kind(name="replica up", ends={ONE: TWO}, steps=(ASKED, COMING), moving="coming")
DOWN = Kind(name="replica down", ends={TWO: ONE}, steps=(ASKED, LEAVING), moving="leaving")
SURGE = Kind(
    name="TP by surge",
    ends={ONE: WIDE, WIDE: ONE},
    steps=(ASKED, "Starting", "Draining", "Done"),
    moving="leaving",
)
ROLL_BACK = Kind(
    name="roll-back",
    ends={ONE: ONE, TWO: TWO},
    steps=(ASKED, "Starting", "RollingBack", "RolledBack"),
    moving="staying",
    impossible=(AN_IMAGE_THAT_IS_NOT_THERE, AN_ENGINE_THAT_DIES_ON_LOAD, A_NODE_THAT_IS_NOT_THERE),
)
IN_PLACE = Kind(
    name="TP in place",
    ends={WHOLE: DIVIDED, DIVIDED: WHOLE},
    steps=(ASKED, "Starting", "Reshaping", "Done"),
    moving="staying",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Kinds that one service can go through one after the other."""

    name: str
    first: Shape
    kinds: tuple[Kind, ...]
    spec: Spec
    """What such a service has beyond others."""


BESIDE = Family(name="beside", first=ONE, kinds=(UP, DOWN, SURGE, ROLL_BACK), spec={})
WITHIN = Family(
    name="in-place",
    first=WHOLE,
    kinds=(IN_PLACE,),
    spec={
        "model": A_70B,
        "transition": {"inPlace": "Enabled", "maxHoldSeconds": 60},
    },
)
"""The node must be full: where there is room beside it, a pod is not changed."""

FAMILIES: Final = (BESIDE, WITHIN)


def absent(spec: Spec) -> dict[str, Any]:
    """The merge patch that takes ``spec`` back where nothing was before."""
    return {key: absent(value) if isinstance(value, dict) else None for key, value in spec.items()}
