"""The time as the API server has it, which stamps objects and conditions and which deadlines are held against.

The machine's own clock may be wrong or jump, and no deadline may come early or late for that. Every answer of the API
server bears its time; between two of them the monotonic clock goes on.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

BACK_S = 2.0
"""Answers say whole seconds and may be read late, so the latest time heard is the nearest. One that lies further back than
this is another clock: the API server's own was set, or another of them answers."""


class ClusterClock:
    def __init__(self) -> None:
        self._ahead_s: float | None = None
        """Of the monotonic clock; None before the first answer."""

    def hear(self, date: str | None) -> None:
        """The `Date` of an answer that has just come (RFC 9110); one that is none changes nothing."""
        try:
            ahead_s = parsedate_to_datetime(date or "").timestamp() - time.monotonic()
        except ValueError:
            return
        known_s = self._ahead_s
        if known_s is None or not known_s - BACK_S <= ahead_s <= known_s:
            self._ahead_s = ahead_s

    def now_s(self) -> float:
        """Unix time, to a second. Before the first answer by the machine's clock."""
        return time.time() if self._ahead_s is None else time.monotonic() + self._ahead_s
