"""Whether the engine still steps: what tells a hung engine from a busy or an idle one.

vLLM's own /health answers 200 as long as the engine's process lives. The stat logger beats once per engine
step; the middleware reports when work reaches an idle engine; the probes and the metrics page read the age. Two
answers follow from it: an engine that is *stalled* gets no new requests, and one that is *hung* is started anew. Clients
give up, and then an engine that hangs has no work and looks idle: so a stall that was seen lasts until the engine has
made a step or answered otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

HUNG_AFTER_S = 60.0
"""Prefill is cut into chunks, so that a step is a matter of seconds at worst: one that takes a minute never
ends."""

STALLED_AFTER_S = 5.0
"""Without a step for this long an engine is taken out of the routers' lists: cheap, and undone by its next step."""

_SLOW_STEPS = 10
"""A step is no stall before it takes this many times as long as the slowest of late: engines that share two cores were
seen to need seconds for one."""

_FORGOTTEN_BY_STEP = 0.01
"""By which the slowest step counts less with each one after it."""


class Heartbeat:
    def __init__(self, *, clock: Callable[[], float], unfinished: Callable[[], int]) -> None:
        """`unfinished`: requests that the engine has taken and not finished. Not the responses still being
        written: a client that reads slowly keeps those open while the engine has nothing to do."""
        self._clock = clock
        self._unfinished = unfinished
        self._last_s = clock()
        self._slowest_s = 0.0
        self._was_stalled = False

    def beat(self) -> None:
        """The engine made a step."""
        self._slowest_s = max(self.age_s(), (1 - _FORGOTTEN_BY_STEP) * self._slowest_s)
        self.recovered()

    def recovered(self) -> None:
        """The engine lives, though it has made no step."""
        self._was_stalled = False
        self._last_s = self._clock()

    def expect(self) -> None:
        """A request is on its way to the engine. An idle engine owes a step only from now on."""
        if self._unfinished() == 0 and not self._was_stalled:
            self._last_s = self._clock()

    def age_s(self) -> float:
        """Seconds that the engine has had work, or is stalled, and made no step; else 0."""
        return self._clock() - self._last_s if self._unfinished() or self._was_stalled else 0.0

    def is_stalled(self) -> bool:
        """Whether what is sent now would wait for an engine that does not step. Remembered until it does."""
        limit_s = min(max(STALLED_AFTER_S, _SLOW_STEPS * self._slowest_s), HUNG_AFTER_S)
        self._was_stalled = self._was_stalled or self.age_s() > limit_s
        return self._was_stalled

    @property
    def hung(self) -> bool:
        return self.age_s() > HUNG_AFTER_S
