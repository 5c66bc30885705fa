"""The emulated engine's event loop: a timer ends when it is due, as nearly as the kernel wakes a thread.

asyncio's own waits by epoll in whole milliseconds: it rounds up, and for most lengths once more, because a float does not
hold them. A step of an engine takes as little as ten. select(2) takes microseconds.
"""

from __future__ import annotations

import asyncio
import select
import selectors


class _PunctualSelector(selectors.EpollSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def punctual_event_loop() -> asyncio.SelectorEventLoop:
    """Create it early in a process: select(2) takes no file descriptor beyond 1023."""
    return asyncio.SelectorEventLoop(_PunctualSelector())
