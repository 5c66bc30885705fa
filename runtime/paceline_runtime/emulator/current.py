"""The conditions that hold now, and who waits for them to change. Changed over the admin socket only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import structlog

from paceline_runtime.launch.emulation import Conditions, Fault
from paceline_runtime.vllm_plugin.admin import Answer, Route

log = structlog.get_logger(__name__)

_NUMBERS = {
    "kappa": "kappa",
    "deltaMilliseconds": "delta_s",
    "driftPerHour": "drift_per_hour",
    "noise": "noise",
}
"""Key of the JSON -> field"""


class ConditionsError(ValueError):
    """Conditions that cannot be. The message says what to write."""


class Current:
    def __init__(self, conditions: Conditions, *, clock: Callable[[], float]) -> None:
        self.conditions = conditions
        self._clock = clock
        self._since_s = clock()
        self._changed = asyncio.Event()

    @property
    def kappa(self) -> float:
        """κ now: drift has moved it since the conditions began."""
        hours = (self._clock() - self._since_s) / 3600
        return max(0.0, self.conditions.kappa * (1 + self.conditions.drift_per_hour * hours))

    def change(self, conditions: Conditions) -> None:
        """From the next step on."""
        log.warning("emulation_changed", **to_json(conditions))
        self.conditions = conditions
        self._since_s = self._clock()
        self._changed.set()
        self._changed = asyncio.Event()

    async def while_fault(self, fault: Fault) -> bool:
        """Wait as long as this fault holds. True if it did."""
        held = False
        while self.conditions.fault == fault:
            held = True
            await self._changed.wait()
        return held


def to_json(conditions: Conditions) -> dict[str, Any]:
    delta_s = conditions.delta_s
    return {
        "kappa": conditions.kappa,
        "deltaMilliseconds": None if delta_s is None else round(delta_s * 1000, 6),
        "driftPerHour": conditions.drift_per_hour,
        "noise": conditions.noise,
        "fault": conditions.fault,
    }


def changed(conditions: Conditions, body: bytes) -> Conditions:
    """With what the JSON object names; the rest stays. Raises ConditionsError."""
    try:
        wanted = json.loads(body)
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict) or not wanted.keys() <= {*_NUMBERS, "fault"}:
        raise ConditionsError(f"write a JSON object of some of {', '.join((*_NUMBERS, 'fault'))}")
    fault = wanted.pop("fault", conditions.fault)
    if fault not in get_args(Fault):
        raise ConditionsError(f"fault: write one of {', '.join(get_args(Fault))}")
    for key, value in wanted.items():
        if value is None and key == "deltaMilliseconds":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e6 < value < 1e6:
            raise ConditionsError(f"{key}: write a number")
        if value < 0 and key != "driftPerHour":
            raise ConditionsError(f"{key}: write a number of at least 0")
    fields = {_NUMBERS[key]: value for key, value in wanted.items()}
    if fields.get("delta_s") is not None:
        fields["delta_s"] /= 1000
    return replace(conditions, **fields, fault=fault)


def admin_routes(current: Current) -> dict[tuple[str, str], Route]:
    """GET and PUT /emulation, for the admin socket."""

    def show(_: bytes) -> Answer:
        return 200, to_json(current.conditions)

    def change(body: bytes) -> Answer:
        try:
            conditions = changed(current.conditions, body)
        except ConditionsError as error:
            return 400, {"error": str(error)}
        current.change(conditions)
        return 200, to_json(conditions)

    return {("GET", "/emulation"): show, ("PUT", "/emulation"): change}
