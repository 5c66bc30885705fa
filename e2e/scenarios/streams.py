"""How many streams are on the pods of a service, by the pods' own count; called by the campaigns.

A pod that leaves serves its metrics until its last stream has ended. A count that could not be read is None.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterable, Sequence

from e2e.scenarios.tenant import Manifest, is_leaving

PORT = 8000
_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{[^}]*\})? (?P<value>\S+)$", re.MULTILINE)


def in_flight(pod: Manifest) -> int | None:
    return _sum(pod, ("paceline_requests_in_flight",))


def taken(pod: Manifest) -> int | None:
    """All that it was sent, those in flight included."""
    return _sum(pod, ("paceline_requests_in_flight", "paceline_requests_total"))


def least(pods: Iterable[Manifest]) -> int | None:
    """In flight on the pod that has the fewest; None where that of one is unknown, or there is none."""
    counts = [in_flight(pod) for pod in pods]
    known = [count for count in counts if count is not None]
    return min(known) if counts and len(known) == len(counts) else None


class Moves:
    """Which pods came, left and stayed while a transition was looked at, and the streams on them."""

    def __init__(self, before: Sequence[Manifest]) -> None:
        self._before = {_uid(pod) for pod in before}
        self._staying = [in_flight(pod) for pod in before]
        self._leaving: dict[str, int | None] = {}
        self._left_at_s: dict[str, float] = {}
        self._drains_s: list[float] = []

    def look(self, pods: Sequence[Manifest]) -> None:
        """Often enough that a pod that leaves is seen before it has stopped accepting, which takes it ten seconds."""
        for pod in pods:
            uid = _uid(pod)
            if is_leaving(pod) and uid not in self._left_at_s:
                self._left_at_s[uid] = time.monotonic()
                if uid in self._before:
                    self._leaving[uid] = in_flight(pod)
        for uid in self._left_at_s.keys() - {_uid(pod) for pod in pods}:
            self._drains_s.append(time.monotonic() - self._left_at_s.pop(uid))

    def streams(self, moving: str, *, now: Sequence[Manifest]) -> int | None:
        """On the pods that came (all that they were sent up to now), that left (when they began to), or that stayed
        (when it was asked for); None where one count is unknown, or there was no such pod."""
        match moving:
            case "coming":
                counts = [taken(pod) for pod in now if _uid(pod) not in self._before]
            case "leaving":
                counts = list(self._leaving.values())
            case _:
                counts = self._staying
        known = [count for count in counts if count is not None]
        return sum(known) if counts and len(known) == len(counts) else None

    @property
    def longest_drain_s(self) -> float | None:
        return max(self._drains_s, default=None)


def _uid(pod: Manifest) -> str:
    return str(pod["metadata"]["uid"])


def page(pod: Manifest) -> str | None:
    """Its metrics; None where it does not answer."""
    address = pod["status"].get("podIP")
    if address is None:
        return None
    try:
        with urllib.request.urlopen(f"http://{address}:{PORT}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def _sum(pod: Manifest, names: tuple[str, ...]) -> int | None:
    found = page(pod)
    if found is None:
        return None
    return int(sum(float(m["value"]) for m in _SAMPLE.finditer(found) if m["name"] in names))
