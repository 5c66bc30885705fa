"""One request and its answer, read to the end.

A request succeeded when its answer is whole: status 200, a finish_reason, for a stream also `[DONE]`, and no
error event after the 200. Everything else is a failure with its reason. Called by the open loop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp


@dataclass(slots=True)
class Record:
    """What became of one request. Times are seconds since the load's start; None is unknown."""

    index: int
    scheduled_s: float
    stream: bool
    max_tokens: int
    started_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    ended_s: float | None = None
    status: int | None = None
    retry_after: str | None = None
    """The header, of an answer that is no success."""
    chunks: int = 0
    """Events that carried text."""
    output_tokens: int | None = None
    """The service's own count, where it told one."""
    finish_reason: str | None = None
    failure: str | None = None

    @property
    def ok(self) -> bool:
        return self.ended_s is not None and self.failure is None

    @property
    def ttft_s(self) -> float | None:
        if self.first_token_s is None or self.started_s is None:
            return None
        return self.first_token_s - self.started_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None with fewer than two tokens."""
        tokens = self.output_tokens if self.output_tokens is not None else self.chunks
        if self.first_token_s is None or self.last_token_s is None or tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (tokens - 1)

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok, "ttft_s": self.ttft_s, "tpot_s": self.tpot_s}


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds since the load's start, in every thread."""

    zero_s: float = field(default_factory=time.monotonic)

    def now_s(self) -> float:
        return time.monotonic() - self.zero_s


class _Failed(Exception):
    """The answer is no success. The text is the reason."""


async def exchange(
    session: aiohttp.ClientSession,
    record: Record,
    *,
    url: str,
    body: Mapping[str, Any],
    clock: Clock,
    timeout_s: float,
) -> None:
    """Send `body` and read the answer to its end; everything seen goes into `record`. Never raises."""
    record.started_s = clock.now_s()
    try:
        async with asyncio.timeout(timeout_s), session.post(url, json=body) as response:
            record.status = response.status
            if response.status != 200:
                record.retry_after = response.headers.get("Retry-After")
                raise _Failed(f"status {response.status}: {(await response.text())[:200]}")
            if record.stream:
                await _read_stream(response, record, clock=clock)
            else:
                _take_whole(await response.json(), record)
                record.first_token_s = record.last_token_s = clock.now_s()
            if record.finish_reason is None:
                raise _Failed("ended without a finish_reason")
    except _Failed as failed:
        record.failure = str(failed)
    except TimeoutError:
        record.failure = f"not ended after {timeout_s:g} s"
    except aiohttp.ClientConnectorError as error:
        record.failure = f"not connected: {error.os_error.strerror}"
    except (aiohttp.ClientError, ConnectionError) as error:
        record.failure = f"connection lost: {error!r}"
    except (ValueError, KeyError, IndexError, TypeError) as error:
        record.failure = f"not an OpenAI answer: {error!r}"
    except asyncio.CancelledError:
        record.failure = "cancelled: the load was ended first"
        raise
    finally:
        record.ended_s = clock.now_s()


async def _read_stream(response: aiohttp.ClientResponse, record: Record, *, clock: Clock) -> None:
    done = False
    async for data in _events(response.content):
        if data == b"[DONE]":
            done = True
            continue
        event = json.loads(data)
        if "error" in event:
            raise _Failed(f"error event after status 200: {json.dumps(event['error'])[:200]}")
        if usage := event.get("usage"):
            record.output_tokens = usage["completion_tokens"]
        for choice in event["choices"]:
            text = choice["delta"].get("content") if "delta" in choice else choice.get("text")
            if text:
                record.last_token_s = clock.now_s()
                if record.first_token_s is None:
                    record.first_token_s = record.last_token_s
                record.chunks += 1
            record.finish_reason = choice.get("finish_reason") or record.finish_reason
    if not done:
        raise _Failed("stream ended without [DONE]")


def _take_whole(answer: Mapping[str, Any], record: Record) -> None:
    record.finish_reason = answer["choices"][0]["finish_reason"]
    record.chunks = 1
    if usage := answer.get("usage"):
        record.output_tokens = usage["completion_tokens"]


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The data of each server-sent event."""
    rest = b""
    async for chunk in content.iter_any():
        rest += chunk
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()
