"""Load whose arrivals follow a schedule and never wait for an answer.

    loop = OpenLoop("http://127.0.0.1:8080", model="chat", load=Load(rate_per_s=8))
    async with loop.running():
        ...                       # disturb the service; loop.live() tells how it goes
    print(loop.summary().text())  # every answer has been read to its end

It must not reach beyond this machine and its test cluster (`target`), nor run without bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from e2e.load import target
from e2e.load.arrivals import Process, arrivals_s
from e2e.load.exchange import Clock, Record, exchange
from e2e.load.replay import Replay
from e2e.load.schedule import MAX_DURATION_S, MAX_REQUESTS, Sending
from e2e.load.summary import Summary

MAX_RATE_PER_S: Final = 500.0
MAX_IN_FLIGHT: Final = 4000
"""A request beyond it is not sent and counts as a failure: a stuck service must not eat this machine."""

LONG_EVERY: Final = 10

PROMPTS: Final = (
    "What is the capital of France?",
    "Tell a short story about a lighthouse.",
    "Explain in two sentences why the sky is blue.",
    "List three uses of a paper clip.",
)


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for, and how often."""

    rate_per_s: float
    process: Process = "poisson"
    seed: int = 0
    stream: bool = True
    max_tokens: tuple[int, int] = (16, 16)
    """Least and most output tokens; each request draws its own."""
    long_tokens: int | None = None
    """Every tenth request asks for so many instead, where this is given."""
    prompts: Sequence[str] = PROMPTS
    timeout_s: float = 300.0
    """For one request, from its sending to the end of its answer."""
    max_duration_s: float = MAX_DURATION_S
    reuse_connections: bool = True
    ignore_eos: bool = False
    """vLLM's extension: exactly as many tokens as asked for, whatever the model would say."""

    def __post_init__(self) -> None:
        if not 0 < self.rate_per_s <= MAX_RATE_PER_S:
            raise ValueError(f"rate_per_s is {self.rate_per_s}: give one above 0, up to {MAX_RATE_PER_S:g}")
        if not 0 < self.max_duration_s <= MAX_DURATION_S:
            raise ValueError(f"max_duration_s is {self.max_duration_s}: give at most {MAX_DURATION_S:g}")
        if not 1 <= self.max_tokens[0] <= self.max_tokens[1]:
            raise ValueError(f"max_tokens is {self.max_tokens}: give (least, most), both at least 1")
        if not self.prompts:
            raise ValueError("prompts is empty: give at least one")

    def sendings(self) -> Iterator[Sending]:
        draw = random.Random(self.seed + 1)
        schedule = arrivals_s(rate_per_s=self.rate_per_s, process=self.process, seed=self.seed)
        for index, at_s in enumerate(schedule):
            if at_s > self.max_duration_s or index >= MAX_REQUESTS:
                return
            max_tokens = self._max_tokens(index, draw)
            yield Sending(at_s=at_s, prompt=draw.choice(self.prompts), max_tokens=max_tokens)

    def _max_tokens(self, index: int, draw: random.Random) -> int:
        drawn = draw.randint(*self.max_tokens)
        if self.long_tokens is None or index % LONG_EVERY != LONG_EVERY - 1:
            return drawn
        return self.long_tokens


@dataclass(frozen=True, slots=True)
class Live:
    """Counts at one moment."""

    sent: int
    ended: int
    failed: int

    @property
    def in_flight(self) -> int:
        return self.sent - self.ended


class OpenLoop:
    """One run of a load against one endpoint."""

    def __init__(self, url: str, *, model: str, load: Load | Replay, api_key: str | None = None) -> None:
        target.check(url)
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
        self._model = model
        self._load = load
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.records: list[Record] = []
        self.clock = Clock()
        """Begins anew when the load does."""
        self._ended = 0
        self._failed = 0
        self._stop = asyncio.Event()

    def live(self) -> Live:
        return Live(sent=len(self.records), ended=self._ended, failed=self._failed)

    def summary(self) -> Summary:
        return Summary.of(self.records)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[OpenLoop]:
        """Send while the block runs; leaving it ends the arrivals and waits for every answer."""
        sending = asyncio.create_task(self._send())
        try:
            yield self
        except BaseException:
            sending.cancel()
            raise
        finally:
            self._stop.set()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def run(self, *, duration_s: float) -> Summary:
        """Send for that long, then read what still runs."""
        async with self.running():
            await asyncio.sleep(duration_s)
        return self.summary()

    async def _send(self) -> None:
        clock = self.clock = Clock()
        connector = aiohttp.TCPConnector(limit=0, force_close=not self._load.reuse_connections)
        async with (
            # Time-outs are the load's own; the client library's would hide a stall.
            aiohttp.ClientSession(
                connector=connector, headers=self._headers, timeout=aiohttp.ClientTimeout(total=None)
            ) as session,
            asyncio.TaskGroup() as requests,
        ):
            for index, sending in enumerate(self._load.sendings()):
                if await self._stopped_before(sending.at_s - clock.now_s()):
                    break
                record = Record(
                    index=index,
                    scheduled_s=sending.at_s,
                    stream=self._load.stream,
                    max_tokens=sending.max_tokens,
                )
                self.records.append(record)
                body = self._body(record, prompt=sending.prompt)
                requests.create_task(self._one(session, record, body=body, clock=clock))

    async def _stopped_before(self, wait_s: float) -> bool:
        """Wait; True where the load was stopped meanwhile. A schedule that is behind waits not at all."""
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stop.wait()
        return self._stop.is_set()

    async def _one(
        self, session: aiohttp.ClientSession, record: Record, *, body: dict[str, Any], clock: Clock
    ) -> None:
        try:
            if self.live().in_flight > MAX_IN_FLIGHT:
                record.failure = f"not sent: {MAX_IN_FLIGHT} requests were in flight"
                return
            await exchange(
                session, record, url=self._url, body=body, clock=clock, timeout_s=self._load.timeout_s
            )
        finally:
            self._ended += 1
            self._failed += record.failure is not None

    def _body(self, record: Record, *, prompt: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": record.max_tokens,
            "stream": record.stream,
        }
        if record.stream:
            body["stream_options"] = {"include_usage": True}
        if self._load.ignore_eos:
            body["ignore_eos"] = True
        return body
