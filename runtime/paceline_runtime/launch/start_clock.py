"""The stages of a start, measured from outside: end to end, so that they add up to the whole.

    fetch ─┬─ import ─┬─ weights ─┬─ compile ─┬─ warmup ─┬ ready = all of them
      files, checks   │  vLLM's   │  profile run, compilation, graph capture,
          processes and imports   │  KV cache, the server    └ requests of ours
                 own figure, from its log

Where vLLM's log does not say when the weights were loaded, the three stages around them are not told apart
and not reported: an unknown time is never a guessed one. Pure but for the clock, which is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from paceline_runtime.launch.failure import Stage

_WEIGHTS = re.compile(r"Loading weights took ([\d.]+) seconds")


class StartClock:
    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s = clock()
        self._spawned_s: float | None = None
        self._weights_s: tuple[float, float] | None = None
        """(begin, end)"""
        self._answers_s: float | None = None
        self._warm_s: float | None = None

    def spawned(self) -> None:
        """The engine's process was started."""
        self._spawned_s = self._clock()

    def read(self, line: str) -> None:
        """A line of the engine's log. With several ranks the last to load counts."""
        if self._answers_s is None and (found := _WEIGHTS.search(line)):
            now_s = self._clock()
            self._weights_s = (now_s - float(found[1]), now_s)

    def answers(self) -> None:
        """The server answers HTTP."""
        self._answers_s = self._clock()

    def warm(self) -> None:
        """The warm-up requests have been answered."""
        self._warm_s = self._clock()

    @property
    def stage(self) -> Stage:
        """Where the start is now."""
        if self._spawned_s is None:
            return "fetch"
        if self._warm_s is not None:
            return "serving"
        if self._answers_s is not None:
            return "warmup"
        return "import" if self._weights_s is None else "compile"

    def stages(self) -> dict[str, float]:
        """Seconds by stage, once warm."""
        assert self._spawned_s is not None
        assert self._answers_s is not None
        assert self._warm_s is not None
        stages = {"fetch": self._spawned_s - self._began_s}
        if self._weights_s is not None:
            begin_s, end_s = self._weights_s
            stages |= {
                "import": begin_s - self._spawned_s,
                "weights": end_s - begin_s,
                "compile": self._answers_s - end_s,
            }
        return stages | {"warmup": self._warm_s - self._answers_s, "ready": self._warm_s - self._began_s}
