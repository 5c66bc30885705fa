"""A load's outcome in a few numbers, for people and for results.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from e2e.load.exchange import Record


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of the successful requests; None where there were none."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        ordered = sorted(values)
        if not ordered:
            return cls(None, None, None, None)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return cls(p50=at(0.5), p90=at(0.9), p99=at(0.99), max=ordered[-1])

    def text(self) -> str:
        if self.p50 is None or self.p90 is None or self.p99 is None or self.max is None:
            return "-"
        return " ".join(
            f"{name} {value * 1000:.1f} ms"
            for name, value in (("p50", self.p50), ("p90", self.p90), ("p99", self.p99), ("max", self.max))
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of all requests, times of those that succeeded."""

    requests: int
    ok: int
    failed: int
    failures: dict[str, int]
    ttft_s: Quantiles
    tpot_s: Quantiles
    output_tokens: int
    late_start_s: float
    """The longest time between a request's schedule and its sending: how open the loop was."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> Summary:
        ok = [record for record in records if record.ok]
        failures = Counter(record.failure for record in records if record.failure is not None)
        return cls(
            requests=len(records),
            ok=len(ok),
            failed=len(records) - len(ok),
            failures=dict(failures.most_common()),
            ttft_s=Quantiles.of([record.ttft_s for record in ok if record.ttft_s is not None]),
            tpot_s=Quantiles.of([record.tpot_s for record in ok if record.tpot_s is not None]),
            output_tokens=sum(
                record.output_tokens if record.output_tokens is not None else record.chunks for record in ok
            ),
            late_start_s=max(
                (record.started_s - record.scheduled_s for record in records if record.started_s is not None),
                default=0.0,
            ),
        )

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        lines = [
            f"{self.requests} requests: {self.ok} ok, {self.failed} failed; {self.output_tokens} tokens; "
            f"latest start {self.late_start_s * 1000:.1f} ms after its schedule",
            f"time to first token    {self.ttft_s.text()}",
            f"time per output token  {self.tpot_s.text()}",
            *(f"failed {count} x  {reason}" for reason, count in self.failures.items()),
        ]
        return "\n".join(lines)
