"""The engine's steps in real time. Runs only while there is work, so that an idle engine uses no CPU.

A step begins when the one before it should have ended, not when this process was told that it had: a late
wake-up delays the tokens of one step and no later ones. How late each was is measured: where it is much, the
machine was too busy for what its engines pretend, and a run on it shows nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from paceline_runtime.emulator.current import Current
from paceline_runtime.emulator.engine import Engine
from paceline_runtime.launch.failure import Stage

_FORGIVEN_S = 0.1
"""Later than this, the process was stopped or starved: catching up would send a burst that no GPU sends."""


class StepLoop:
    def __init__(
        self,
        current: Current,
        *,
        on_lag: Callable[[float], None],
        on_step: Callable[[], None],
        die: Callable[[Stage], None],
    ) -> None:
        """`die` ends the process: the fault Die."""
        self._current = current
        self._on_lag = on_lag
        self._on_step = on_step
        self._die = die
        self._task: asyncio.Task[None] | None = None

    def wake(self, engine: Engine) -> None:
        """There is work."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._step_while_busy(engine))

    async def _step_while_busy(self, engine: Engine) -> None:
        loop = asyncio.get_running_loop()
        begins_s = loop.time()
        while engine.unfinished():
            due_s = begins_s + engine.begin_step(begins_s)
            # Even where it is over already: the streams must come to write.
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if await self._current.while_fault("Hang"):
                due_s = loop.time()
            if self._current.conditions.fault == "Die":
                self._die("serving")
            now_s = loop.time()
            self._on_lag(now_s - due_s)
            self._on_step()
            engine.end_step(now_s)
            begins_s = due_s if now_s - due_s < _FORGIVEN_S else now_s
