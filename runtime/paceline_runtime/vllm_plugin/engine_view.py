"""What the middleware and the probes may ask of an engine, whichever it is.

Implemented by `endpoints` for vLLM and by the emulator. It is read-only: nothing here can change a request.
"""

from __future__ import annotations

from typing import Protocol


class EngineView(Protocol):
    def unfinished(self) -> int:
        """Requests that the engine has taken and not finished."""

    def prompt_tokens(self, request_id: str) -> int | None:
        """Length of the prompt of a running request; None if the engine does not know the request (any
        more)."""

    async def answer(self) -> None:
        """Return once its loop has gone round, asked for nothing; that may be never."""


class NoEngine:
    """Before the engine is there."""

    def unfinished(self) -> int:
        return 0

    def prompt_tokens(self, request_id: str) -> int | None:
        return None

    async def answer(self) -> None:
        return
