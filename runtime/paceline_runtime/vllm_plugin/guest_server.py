"""uvicorn inside a process whose signals belong to someone else: vLLM, or the emulated engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn


class GuestServer(uvicorn.Server):
    """Neither takes signals nor raises them again when it ends: the exit code stays the owner's.

    uvicorn wakes up ten times a second to see whether it should end and to keep the time of its Date header.
    Forty idle pods would spend most of their CPU on that, so this one sends no Date and waits to be told.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        config.date_header = False
        super().__init__(config)
        self._told_to_end = asyncio.Event()

    def end(self) -> None:
        """Stop accepting, let requests end, return from `serve`."""
        self.should_exit = True
        self._told_to_end.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._told_to_end.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
