"""Exact counts of requests by latency class and outcome, against targets that may change while running.

The middleware writes one entry per request, the metrics page reads all. A percentile from histogram buckets
is interpolation; these counts are what the service's objective is checked against.
"""

from __future__ import annotations

from paceline_core.latency import LatencyTarget, Outcome, Targets

UNKNOWN = "unknown"
"""Latency class of a request whose prompt was never tokenised (refused, malformed) where classes differ by
length."""


class Ledger:
    """Counts that only grow. A class that is gone from the targets keeps its counts."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._counts: dict[tuple[str, Outcome], int] = {}
        self._show_classes()

    @property
    def targets(self) -> Targets:
        return self._targets

    def retarget(self, targets: Targets) -> None:
        """Judge by these from now on. Requests in flight are judged by what holds when they end."""
        self._targets = targets
        self._show_classes()

    def classify(self, prompt_tokens: int | None) -> tuple[str, LatencyTarget]:
        """Label and target for a prompt.

        A prompt of unknown length is judged by the last class, whose targets are the widest.
        """
        classes = self._targets.classes
        if prompt_tokens is not None:
            target = self._targets.classify(prompt_tokens)
            return target.name, target
        return (classes[0].name if len(classes) == 1 else UNKNOWN), classes[-1]

    def count(self, latency_class: str, outcome: Outcome) -> None:
        self._counts[latency_class, outcome] += 1

    def counts(self) -> dict[tuple[str, Outcome], int]:
        return dict(self._counts)

    def _show_classes(self) -> None:
        # Series that begin at 0: the rate of a counter that first appears at 1 misses its first request.
        for name in (*(one.name for one in self._targets.classes), UNKNOWN):
            for outcome in Outcome:
                self._counts.setdefault((name, outcome), 0)
