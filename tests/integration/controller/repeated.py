"""What goes on beside a test: one call again and again, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def repeated(what: Callable[[], None], *, every_s: float) -> Iterator[None]:
    """Until the end of the block; a call that has begun is waited for."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(every_s):
            # A server that is too busy to answer is asked again.
            with suppress(OSError):
                what()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
