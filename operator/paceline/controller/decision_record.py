"""A decision in full, as JSON: what was seen, what was weighed, what was chosen. Pure.

Written by the decision loop into the ConfigMap NAME-decisions, read by `paceline explain` and
`paceline replay`. Every figure keeps its trust, so that the same planner gives the same answer again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from paceline.fleet.timestamps import rfc3339
from paceline.planner import Candidate, Decision, Observation, PlannerState

T = TypeVar("T")

CANDIDATES = 24
"""Kept per decision: the one chosen, then the cheapest. A planner may weigh many more."""

_OBSERVATION = TypeAdapter(Observation)
_STATE = TypeAdapter(PlannerState)
_CANDIDATE = TypeAdapter(Candidate)


def record_of(
    decision: Decision, *, observation: Observation, mode: str, state: PlannerState
) -> dict[str, Any]:
    """`state` is the one that the decision was made with."""
    before = observation.current
    return {
        "at": rfc3339(observation.now_s),
        "mode": mode,
        "before": _shape(before.tensor_parallel_size, before.replicas) if before is not None else None,
        "shape": _shape(decision.shape.tensor_parallel_size, decision.shape.replicas),
        "reason": decision.reason,
        "message": decision.message,
        "limit": decision.limit,
        "feasible": decision.feasible,
        "confidence": round(decision.confidence, 3),
        "wouldChange": list(decision.would_change),
        "candidates": [plain(_CANDIDATE, one) for one in _worth_telling(decision.candidates)],
        "observation": plain(_OBSERVATION, observation),
        "state": plain(_STATE, state),
    }


def candidates_of(record: Mapping[str, Any]) -> tuple[Candidate, ...]:
    return tuple(_CANDIDATE.validate_python(one) for one in record.get("candidates") or ())


def observation_of(record: Mapping[str, Any]) -> Observation:
    return observation_from_plain(record["observation"])


def observation_from_plain(value: object) -> Observation:
    return _OBSERVATION.validate_python(value)


def state_of(plain_state: object) -> PlannerState | None:
    """None for what another version wrote and this one cannot read: history is lost, nothing else."""
    try:
        return _STATE.validate_python(plain_state)
    except ValidationError:
        return None


def plain_state(state: PlannerState) -> Any:
    return plain(_STATE, state)


def plain_observation(observation: Observation) -> Any:
    return plain(_OBSERVATION, observation)


def plain(adapter: TypeAdapter[T], value: T) -> Any:
    """As JSON keeps it; an unbounded edge of a histogram is `Infinity`, which Python reads back."""
    return json.loads(json.dumps(adapter.dump_python(value)))


def _worth_telling(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    ordered = sorted(candidates, key=lambda one: (one.rejected is not None, one.gpus, one.shape.replicas))
    return ordered[:CANDIDATES]


def _shape(tensor_parallel_size: int, replicas: int) -> dict[str, int]:
    return {"tensorParallelSize": tensor_parallel_size, "replicas": replicas}
