"""The data-parallel ranks of one pod: engines that share a port and nothing else, each with its own KV cache.

A request goes to the rank that is least busy, as vLLM's front end picks one (0.32: four times what waits, and what
runs). With one rank this is that engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from paceline_runtime.emulator.current import Current
from paceline_runtime.emulator.engine import Engine
from paceline_runtime.emulator.engine_request import EngineRequest


class Ranks:
    """Satisfies EngineView."""

    def __init__(self, engines: Sequence[Engine], *, current: Current) -> None:
        self._engines = tuple(engines)
        self._current = current

    @property
    def running(self) -> int:
        return sum(one.running for one in self._engines)

    @property
    def waiting(self) -> int:
        return sum(one.waiting for one in self._engines)

    def unfinished(self) -> int:
        return sum(one.unfinished() for one in self._engines)

    def prompt_tokens(self, request_id: str) -> int | None:
        found = (one.prompt_tokens(request_id) for one in self._engines)
        return next((tokens for tokens in found if tokens is not None), None)

    async def answer(self) -> None:
        await self._current.while_fault("Hang")

    def admit(self, request: EngineRequest) -> None:
        """Raises QueueFull, where the least busy rank is full."""
        min(self._engines, key=lambda one: 4 * one.waiting + one.running).admit(request)

    def abort(self, request: EngineRequest) -> None:
        for one in self._engines:
            one.abort(request)

    def show(self) -> None:
        """Before the metrics are written."""
        for one in self._engines:
            one.show()
