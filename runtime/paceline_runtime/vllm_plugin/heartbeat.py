"""Whether the engine still steps: what tells a hung engine from a busy or an idle one.

vLLM's own /health answers 200 as long as the engine's process lives. The stat logger beats once per engine
step; the middleware reports when work reaches an idle engine; the liveness probe and the metrics page read
the age.
"""

from __future__ import annotations

from collections.abc import Callable

HUNG_AFTER_S = 60.0
"""Prefill is cut into chunks, so that a step is a matter of seconds at worst: one that takes a minute never
ends."""


class Heartbeat:
    def __init__(self, *, clock: Callable[[], float], unfinished: Callable[[], int]) -> None:
        """`unfinished`: requests that the engine has taken and not finished. Not the responses still being
        written: a client that reads slowly keeps those open while the engine has nothing to do."""
        self._clock = clock
        self._unfinished = unfinished
        self._last_s = clock()

    def beat(self) -> None:
        """The engine made a step."""
        self._last_s = self._clock()

    def expect(self) -> None:
        """A request is on its way to the engine. An idle engine owes a step only from now on."""
        if self._unfinished() == 0:
            self._last_s = self._clock()

    def age_s(self) -> float:
        """Seconds that the engine has had work and made no step; 0 while it has none."""
        return self._clock() - self._last_s if self._unfinished() else 0.0

    @property
    def hung(self) -> bool:
        return self.age_s() > HUNG_AFTER_S
