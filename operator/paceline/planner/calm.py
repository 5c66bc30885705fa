"""Up at once, down late and only as far as every recent look agrees: what keeps replicas from flapping.

As Kubernetes' HPA does, the way down ends at the most that any look within the stabilization window wanted.
Beyond it, replicas that come back soon after some were taken away are a reversal; each reversal of the last
hour makes the window longer and the proof that a smaller shape must give stricter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from paceline.planner.observation import Observation, Shape
from paceline.planner.settings import PlannerSettings
from paceline.planner.state import PlannerState, Recommendation

_WIDER_MOST: Final = 4
_STEP_LEAST: Final = 0.5
"""Share of the replicas that stay in one step down, however little is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How hard it is to go down at present."""

    reversals: int

    @property
    def allowance_factor(self) -> float:
        return 0.5**self.reversals

    def window_s(self, stabilization_s: float) -> float:
        return stabilization_s * (1 + self.reversals)

    @property
    def note(self) -> str:
        return f"; {self.reversals} reversals lately: the band is wider" if self.reversals else ""


def band_of(state: PlannerState, *, now_s: float, settings: PlannerSettings) -> Band:
    recent = [at_s for at_s in state.reversed_at_s if 0 <= now_s - at_s < settings.flap_memory_s]
    return Band(reversals=min(len(recent), _WIDER_MOST))


def lowered_to(observation: Observation, state: PlannerState, *, proven: int, band: Band) -> int:
    """The replicas to go down to, at most those there are now. `proven` are enough at this look."""
    current = observation.current
    assert current is not None
    window_s = band.window_s(observation.goal.scale_down_stabilization_s)
    since = state.looks_since_s
    if window_s > 0 and (since is None or observation.now_s - since < window_s):
        return current.replicas
    within = [
        one.shape.replicas
        for one in state.recommendations
        if 0 <= observation.now_s - one.at_s <= window_s
        and one.shape.tensor_parallel_size == current.tensor_parallel_size
    ]
    least = max(int(current.replicas * _STEP_LEAST), 1)
    return min(max(proven, least, *within, 1), current.replicas)


def recorded(
    observation: Observation,
    state: PlannerState,
    *,
    proven: Shape,
    chosen: Shape,
    settings: PlannerSettings,
) -> PlannerState:
    """The state with what this look wanted and what was done."""
    now_s, current = observation.now_s, observation.current
    keep_s = (1 + _WIDER_MOST) * observation.goal.scale_down_stabilization_s
    kept = [
        one
        for one in state.recommendations
        if 0 <= now_s - one.at_s <= keep_s and one.shape.tensor_parallel_size == proven.tensor_parallel_size
    ]
    # Only the most of a window counts: a look that wanted as much hides those before it.
    while kept and kept[-1].shape.replicas <= proven.replicas:
        kept.pop()
    recommendations = (*kept, Recommendation(at_s=now_s, shape=proven))
    lowered = tuple(at_s for at_s in state.lowered_at_s if now_s - at_s < settings.flap_s)
    reversed_at_s = tuple(at_s for at_s in state.reversed_at_s if now_s - at_s < settings.flap_memory_s)
    if current is not None and chosen.tensor_parallel_size == current.tensor_parallel_size:
        if chosen.replicas < current.replicas:
            lowered = (*lowered, now_s)
        elif chosen.replicas > current.replicas and lowered:
            reversed_at_s, lowered = (*reversed_at_s, now_s), ()
    moved = current is None or chosen.tensor_parallel_size != current.tensor_parallel_size
    since = now_s if state.looks_since_s is None or state.looks_since_s > now_s else state.looks_since_s
    return replace(
        state,
        recommendations=() if moved else recommendations,
        looks_since_s=None if moved else since,
        lowered_at_s=lowered,
        reversed_at_s=reversed_at_s,
    )
