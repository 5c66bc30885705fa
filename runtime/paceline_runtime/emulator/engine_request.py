"""One request in the emulated engine: its times, and who waits for its tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True, kw_only=True)
class EngineRequest:
    request_id: str
    prompt_tokens: int
    output_tokens: int
    """How many it will get."""
    cached_tokens: int = 0
    """Of the prompt, in the prefix cache."""
    finish_reason: str
    arrived_s: float
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    produced: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def tokens_as_they_come(self) -> AsyncIterator[range]:
        """Their places; several at once for a reader that is behind."""
        sent = 0
        while sent < self.output_tokens:
            await self.changed.wait()
            self.changed.clear()
            produced = self.produced
            if produced > sent:
                yield range(sent, produced)
                sent = produced
