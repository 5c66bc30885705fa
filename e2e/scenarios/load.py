"""Open-loop load beside a scenario: it runs in a thread of its own, so that the scenario may block on kubectl."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from e2e.kubectl import wait_for
from e2e.load import Load, OpenLoop, Record, Replay, target
from e2e.load.exchange import Clock, exchange


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of every request that was sent."""

    records: tuple[Record, ...]

    @property
    def first_tokens_s(self) -> list[float]:
        """Times to the first token of all that had one, ascending."""
        return sorted(record.ttft_s for record in self.records if record.ttft_s is not None)

    @property
    def requests(self) -> int:
        return len(self.records)

    @property
    def failures(self) -> list[str]:
        """One line for each failed request, with the moment it was sent."""
        return [f"{r.scheduled_s:.1f} s: {r.failure}" for r in self.records if r.failure is not None]


def targets(*, ttft_s: float, tpot_s: float) -> dict[str, Any]:
    """`spec.slo` with one latency class, which :func:`attains` judges by."""
    latency = {
        "name": "all",
        "timeToFirstToken": {"thresholdMilliseconds": round(1000 * ttft_s)},
        "timePerOutputToken": {"thresholdMilliseconds": round(1000 * tpot_s)},
    }
    return {"latencyClasses": [latency]}


def attains(record: Record, *, ttft_s: float, tpot_s: float) -> bool:
    """It met both targets; one that failed did not."""
    if record.failure is not None or record.ttft_s is None:
        return False
    return record.ttft_s <= ttft_s and (record.tpot_s is None or record.tpot_s <= tpot_s)


class Background:
    """One load on one endpoint, from entering :meth:`running` until it is left and every answer was read."""

    def __init__(self, url: str, *, model: str, load: Load | Replay) -> None:
        self._url = url
        self._model = model
        self._load = load
        self._loop = asyncio.new_event_loop()
        self._open: OpenLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Background]:
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        thread.start()
        self._started.wait(timeout=10)
        try:
            yield self
        finally:
            assert self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(timeout=self._load.timeout_s + 10)

    def now_s(self) -> float:
        """On the clock of the records."""
        assert self._open is not None
        return self._open.clock.now_s()

    def until(self, *, requests: int, timeout_s: float) -> None:
        """Wait until that many requests have ended."""
        assert self._open is not None
        open_loop = self._open
        wait_for(f"{requests} requests", lambda: open_loop.live().ended >= requests, timeout_s=timeout_s)

    def outcome(self) -> Outcome:
        assert self._open is not None
        return Outcome(tuple(self._open.records))

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        self._open = OpenLoop(self._url, model=self._model, load=self._load)
        async with self._open.running():
            self._started.set()
            await self._stop.wait()


def burst(
    url: str, *, model: str, requests: int, stream: bool | None = True, timeout_s: float = 120
) -> list[Record]:
    """All at once, and what became of each. Every answer has 8 tokens. `stream` None: every other one streams."""

    async def send() -> list[Record]:
        target.check(url)
        clock = Clock()
        records = [
            Record(
                index=index,
                scheduled_s=0.0,
                stream=index % 2 == 0 if stream is None else stream,
                max_tokens=8,
            )
            for index in range(requests)
        ]
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 8,
            "ignore_eos": True,
        }
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None)
        ) as session:
            await asyncio.gather(
                *(
                    exchange(
                        session,
                        record,
                        url=f"{url}/v1/chat/completions",
                        body={**body, "stream": record.stream},
                        clock=clock,
                        timeout_s=timeout_s,
                    )
                    for record in records
                )
            )
        return records

    return asyncio.run(send())


def first_success_after(url: str, *, model: str, timeout_s: float) -> float:
    """Seconds until a small request succeeds, asked again every 100 ms."""
    started_s = time.monotonic()

    def succeeds() -> bool:
        loop = OpenLoop(url, model=model, load=Load(rate_per_s=100, max_tokens=(1, 1), timeout_s=2))
        summary = asyncio.run(loop.run(duration_s=0.02))
        return summary.requests > 0 and summary.failed == 0

    wait_for("a successful request", succeeds, timeout_s=timeout_s, every_s=0.1)
    return time.monotonic() - started_s
