"""The last advice on every service: written by the decision loop, read by the reconciler.

Lost with the process, on purpose: what an advice has moved stands in the status, and the next loop makes
another one within a period.
"""

from __future__ import annotations

from dataclasses import replace

from paceline.controller.work_queue import ServiceKey
from paceline.fleet.advice import Advice


class AdviceBook:
    def __init__(self) -> None:
        self._advice: dict[ServiceKey, Advice] = {}

    def of(self, key: ServiceKey) -> Advice | None:
        return self._advice.get(key)

    def put(self, key: ServiceKey, advice: Advice) -> bool:
        """Whether it says something else than the one before, time and figures apart."""
        before = self._advice.get(key)
        self._advice[key] = advice
        return before is None or _said(before) != _said(advice)

    def forget(self, key: ServiceKey) -> None:
        self._advice.pop(key, None)


def _said(advice: Advice) -> tuple[object, ...]:
    """A message has figures in it, such as the rate, that are others at every look."""
    choice = advice.choice
    straggler = advice.straggler.uid if advice.straggler is not None else None
    if choice is None:
        return (None, advice.metrics, straggler)
    return (replace(choice, message="", predicted_attainment=None), advice.metrics, straggler)
