"""A service under load that never stops, while one transition after the other is made at random moments.

Called by `test_transitions.py` and `test_kills.py`. A campaign takes longer than one session: each transition is
written to `e2e/results` when the next one begins, what earlier sessions wrote counts, and a session ends in time.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from e2e.kubectl import wait_for
from e2e.load import Load, Record
from e2e.scenarios.load import Background, attains, targets
from e2e.scenarios.streams import Moves, least
from e2e.scenarios.tenant import Manifest, Tenant
from e2e.scenarios.transitions import Family, Kind, Shape, absent

SESSION_S: Final = float(os.environ.get("PACELINE_CAMPAIGN_S", "2400"))
"""No transition begins later than this after the session did."""

STEP_MS: Final = 100
START_S: Final = 5
MODEL_LIMITS: Final = {"maxRequestSeconds": 90, "maxOutputTokens": 500}

TTFT_TARGET_S, TPOT_TARGET_S = 0.5, 0.15
OBJECTIVE_PERCENT: Final = 99.0

MOMENT_S: Final = 8
SETTLE_S: Final = 240
LOOK_S: Final = 1.5

DEADLINES: Final = {"readyDeadlineSeconds": 120, "pendingDeadlineSeconds": 60}
HASTY: Final = {"readyDeadlineSeconds": 20, "pendingDeadlineSeconds": 10}
"""While what is asked for cannot be had: the roll-back need not take minutes."""

TTFT_BIN_MS: Final = 5

Append = Callable[..., None]


def _nothing() -> None:
    pass


class Session:
    """The time that one run of a campaign has."""

    def __init__(self) -> None:
        self._end_s = time.monotonic() + SESSION_S

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._end_s

    def end(self) -> None:
        self._end_s = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One transition that is over; its window is open until the next one begins."""

    kind: Kind
    before: Shape
    after: Shape
    detail: str
    asked_s: float
    settled_s: float
    moves: Moves
    noted: dict[str, Any]


class Stage:
    """One service with its load, and the transition that it was last in."""

    def __init__(
        self, tenant: Tenant, *, family: Family, manifest: Manifest, load: Load, seed: int, append: Append
    ) -> None:
        """`manifest` is of any emulated engine; the rest of it comes from here."""
        self.tenant = tenant
        self.family = family
        self.shape = family.first
        self.failed = 0
        self.dice = random.Random(seed)
        self._manifest = on_stage(manifest, name=tenant.name, family=family)
        self._load = load
        self._seed = seed
        self._append = append
        self._last: Played | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The service is there and under load. Leaving it waits for every answer, and writes the last transition."""
        self.tenant.apply(self._manifest)
        self.tenant.settle(timeout_s=SETTLE_S)
        self._background = Background(self.tenant.base_url(), model=self.tenant.name, load=self._load)
        with self._background.running():
            yield
            moving = self._streams_on_what_moved()
        self._write(until_s=self._background.now_s(), moving=moving)

    def await_streams(self, count: int) -> None:
        """Until that many are on every pod that serves, and a random moment longer."""
        wait_for(
            f"{count} streams on every pod",
            lambda: (least(self.tenant.serving()) or 0) >= count,
            timeout_s=180,
            every_s=2,
        )
        time.sleep(self.dice.uniform(0, MOMENT_S))

    def play(
        self, kind: Kind, *, first: Callable[[], None] = _nothing, meanwhile: Callable[[], None] = _nothing
    ) -> None:
        """Make the transition and wait until the service has settled. ``first`` runs right before it is asked for, and
        ``meanwhile`` right after."""
        before, after = self.shape, kind.ends[self.shape]
        moving, moves = self._streams_on_what_moved(), Moves(self.tenant.engines())
        asked_s = self._background.now_s()
        self._write(until_s=asked_s, moving=moving)
        impossible = self.dice.choice(kind.impossible) if kind.impossible else None
        first()
        self.tenant.change(after.spec if impossible is None else {**impossible, "transition": HASTY})
        meanwhile()

        def look() -> None:
            moves.look(self.tenant.engines())

        if impossible is not None:
            self._wait_until("taken back", self.tenant.is_refused, look)
            self.tenant.change({**absent(impossible), "transition": DEADLINES})
        self._wait_until("settled", lambda: self.tenant.settled() is not None, look)
        self.shape = after
        self._last = Played(
            kind=kind,
            before=before,
            after=after,
            detail="" if impossible is None else ", ".join(impossible),
            asked_s=asked_s,
            settled_s=self._background.now_s(),
            moves=moves,
            noted={},
        )

    def note(self, **figures: Any) -> None:
        """Write these with the last transition."""
        assert self._last is not None
        self._last.noted.update(figures)

    def _wait_until(self, what: str, holds: Callable[[], bool], look: Callable[[], None]) -> None:
        def looked() -> bool:
            look()
            return holds()

        wait_for(f"{self.tenant.name} {what}", looked, timeout_s=SETTLE_S, every_s=LOOK_S)

    def _streams_on_what_moved(self) -> int | None:
        """In the last transition, as it is known now that the next one begins."""
        if self._last is None:
            return None
        return self._last.moves.streams(self._last.kind.moving, now=self.tenant.engines())

    def _write(self, *, until_s: float, moving: int | None) -> None:
        """A request belongs to the transition in whose window, which lasts to the beginning of the next, it ended."""
        played, self._last = self._last, None
        if played is None:
            return
        ended = [r for r in self._records() if played.asked_s <= _end_s(r) < until_s]
        lost = [r for r in ended if r.failure is not None]
        self.failed += len(lost)
        self._append(
            seed=self._seed,
            kind=played.kind.name,
            detail=played.detail,
            shapes=shapes(played.before, played.after),
            seconds=round(played.settled_s - played.asked_s, 1),
            requests=len(ended),
            failed=len(lost),
            first="; ".join(f"{r.scheduled_s - played.asked_s:+.1f} s: {r.failure}" for r in lost[:3])[:400],
            attained=sum(attains(r, ttft_s=TTFT_TARGET_S, tpot_s=TPOT_TARGET_S) for r in ended),
            long=sum(r.max_tokens == self._load.long_tokens for r in ended),
            streams_moving=moving,
            longest_drain_s=_rounded(played.moves.longest_drain_s),
            ttft_ms_meanwhile=self._ttft_ms(played.asked_s, played.settled_s),
            ttft_ms_at_rest=self._ttft_ms(played.settled_s, until_s),
            **played.noted,
        )

    def _records(self) -> tuple[Record, ...]:
        return self._background.outcome().records

    def _ttft_ms(self, from_s: float, to_s: float) -> dict[str, int]:
        """Of the requests sent between the two: how many by their time to first token, in bins."""
        found = (r.ttft_s for r in self._records() if r.started_s and from_s <= r.started_s < to_s)
        counts = Counter(TTFT_BIN_MS * round(1000 * ttft_s / TTFT_BIN_MS) for ttft_s in found if ttft_s)
        return {str(ms): counts[ms] for ms in sorted(counts)}


def on_stage(manifest: Manifest, *, name: str, family: Family) -> Manifest:
    """``manifest`` as the campaigns play it."""
    manifest["metadata"] = {"name": name}
    manifest["spec"] |= {
        "slo": targets(ttft_s=TTFT_TARGET_S, tpot_s=TPOT_TARGET_S),
        "admission": MODEL_LIMITS,
        "transition": DEADLINES,
    }
    for field, value in {**family.first.spec, **family.spec}.items():
        manifest["spec"][field] = {**manifest["spec"][field], **value}
    manifest["spec"]["runtime"]["emulation"] = {"stepMilliseconds": STEP_MS, "startSeconds": START_S}
    return manifest


def _end_s(record: Record) -> float:
    """A request that is still under way ends later than any window."""
    if record.ended_s is not None:
        return record.ended_s
    return float("inf") if record.failure is None else record.scheduled_s


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def shapes(before: Shape, after: Shape) -> str:
    return " to ".join(f"{one.replicas}xTP{one.tensor_parallel_size}" for one in (before, after))
