"""A decision, an observation or a state as JSON, and back: for records, replays and the status of a service.

Strict: a figure of a decision or a state that is not finite is an error, for it must never leave. An observation
may hold what was measured, NaN too, and the infinite last edge of a histogram: a replay must see what was seen.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from pydantic import TypeAdapter

from paceline.planner.decision import Decision
from paceline.planner.observation import Observation
from paceline.planner.state import PlannerState

_DECISION: Final = TypeAdapter(Decision)
_OBSERVATION: Final = TypeAdapter(Observation)
_STATE: Final = TypeAdapter(PlannerState)


def decision_to_json(decision: Decision) -> str:
    """ValueError for a figure that is not finite."""
    return json.dumps(_DECISION.dump_python(decision), allow_nan=False, separators=(",", ":"))


def decision_from_json(text: str | bytes) -> Decision:
    return _DECISION.validate_json(text)


def state_to_json(state: PlannerState) -> str:
    """ValueError for a figure that is not finite."""
    return json.dumps(_STATE.dump_python(state), allow_nan=False, separators=(",", ":"))


def state_from_json(text: str | bytes) -> PlannerState:
    return _STATE.validate_json(text)


def observation_to_json(observation: Observation) -> str:
    return json.dumps(_spelled(_OBSERVATION.dump_python(observation)), allow_nan=False, separators=(",", ":"))


def observation_from_json(text: str | bytes) -> Observation:
    return _OBSERVATION.validate_json(text)


def _spelled(value: Any) -> Any:
    """JSON has no word for what is not finite; text is read back as a float."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _spelled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(one) for one in value]
    return value
