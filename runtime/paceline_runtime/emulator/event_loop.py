"""An event loop whose timers are punctual to some fifty microseconds, the slack that Linux gives a sleeping thread.

Called by the emulated engine's process. asyncio's own waits by epoll in whole milliseconds: it rounds up, and for most
lengths once more, because a float does not hold them. A step of an engine takes as little as ten.
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


def event_loop() -> asyncio.SelectorEventLoop:
    """Create it early in a process: select(2) takes no file descriptor beyond 1023."""
    return asyncio.SelectorEventLoop(_PunctualSelector())
