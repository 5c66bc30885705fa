"""uvicorn inside a process whose signals belong to someone else: vLLM, or the emulated engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn


class GuestServer(uvicorn.Server):
    """Neither takes signals nor raises them again when it ends: the exit code stays the owner's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
