"""Whether this process may still write, by its own monotonic clock.

The lease extends it; every write asks it, a first time before anything is prepared and a last time in the
call that hands the bytes to the socket (`FencedBody`). A process that was stopped for longer than the lease
wakes up with the fence expired, whatever the API server would say: the monotonic clock went on while it
slept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload

from paceline.controller.errors import FenceLost


class Fence:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s = float("-inf")

    def extend(self, until_s: float) -> None:
        """Hold until then, on the clock of this fence. Never shortens."""
        self._until_s = max(self._until_s, until_s)

    def drop(self) -> None:
        self._until_s = float("-inf")

    @property
    def now_s(self) -> float:
        return self._clock()

    @property
    def remaining_s(self) -> float:
        return self._until_s - self._clock()

    def check(self) -> None:
        if self.remaining_s <= 0:
            raise FenceLost("the lease is not held: nothing may be written")


class FencedBody(BytesPayload):
    """A request body that leaves the process only under a valid fence.

    Raising here breaks the connection before the body is complete, and the API server acts on no half
    request. The headers wait in the same buffer, so between the question and the socket there is no other
    await.
    """

    def __init__(self, value: bytes, *, content_type: str, fence: Fence) -> None:
        super().__init__(value, content_type=content_type)
        self._fence = fence

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._fence.check()
        await super().write(writer)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._fence.check()
        await super().write_with_length(writer, content_length)
