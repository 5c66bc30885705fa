"""Closed-loop rows of a served model, measured by its own clients: what `paceline timing check` asks for.

Called by `paceline timing measure`. Each client sends its next request when the last is answered, as `timing_closed_loop`
replays it. Prompts are random token ids, each its own, so that no prefix cache knows them; answers are as long as asked
(`ignore_eos`), or the row is refused.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import aiohttp

from paceline.cli.timing_closed_loop import draw_lengths

TOKEN_IDS: Final = range(1000, 30_000)
"""Of prompts: ordinary words in every vocabulary that a model of our tables has."""

_LONGEST_S: Final = 1800


class NotMeasured(ValueError):
    """The endpoint did not answer as a row needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Means over all requests, in milliseconds, and how long they took in all, in seconds."""

    ttft_ms: float
    tpot_ms: float
    wall_s: float


async def served_model(url: str) -> str:
    """The name under which the endpoint serves its model."""
    async with _session() as session:
        try:
            async with session.get(f"{url}/v1/models") as response:
                response.raise_for_status()
                return str((await response.json())["data"][0]["id"])
        except (aiohttp.ClientError, OSError, KeyError, IndexError, ValueError) as error:
            raise NotMeasured(f"{url}/v1/models named no model: {error}") from error


async def measure(
    url: str,
    *,
    model: str,
    prompt_tokens: int,
    output_tokens: int,
    concurrency: int,
    requests: int,
    seed: int,
) -> Measured:
    """`requests` in all from `concurrency` clients; NotMeasured where one is not answered in full."""
    lengths = draw_lengths(
        prompt_tokens=prompt_tokens, output_tokens=output_tokens, requests=requests, seed=seed
    )
    rng = random.Random(seed)
    waiting = iter([([rng.choice(TOKEN_IDS) for _ in range(prompt)], output) for prompt, output in lengths])
    times: list[tuple[float, float]] = []
    clock = asyncio.get_running_loop().time
    started_s = clock()
    try:
        async with _session() as session, asyncio.TaskGroup() as clients:
            for _ in range(concurrency):
                clients.create_task(_client(session, f"{url}/v1/completions", model, waiting, times))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return Measured(
        ttft_ms=1000 * fmean(ttft_s for ttft_s, _ in times),
        tpot_ms=1000 * fmean(tpot_s for _, tpot_s in times),
        wall_s=clock() - started_s,
    )


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=_LONGEST_S)
    )


async def _client(
    session: aiohttp.ClientSession,
    url: str,
    model: str,
    waiting: Iterator[tuple[Sequence[int], int]],
    times: list[tuple[float, float]],
) -> None:
    for prompt, output in waiting:
        times.append(await _request(session, url, model=model, prompt=prompt, output=output))


async def _request(
    session: aiohttp.ClientSession, url: str, *, model: str, prompt: Sequence[int], output: int
) -> tuple[float, float]:
    """Its TTFT and TPOT in seconds."""
    body = {"model": model, "prompt": prompt, "max_tokens": output, "ignore_eos": True, "temperature": 0}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    clock = asyncio.get_running_loop().time
    sent_s = clock()
    pieces: list[tuple[float, bytes]] = []
    try:
        async with session.post(url, json=body) as response:
            if response.status != 200:
                raise NotMeasured(f"{url} answered {response.status}: {(await response.text())[:300]}")
            async for piece in response.content.iter_any():
                pieces.append((clock(), piece))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NotMeasured(f"{url} broke off: {error!r}") from error
    tokens = _completion_tokens(b"".join(piece for _, piece in pieces))
    if tokens != output:
        raise NotMeasured(f"{url} was asked for {output} tokens and answered with {tokens}")
    with_text_s = [at_s for at_s, piece in pieces if b'"text"' in piece]
    return with_text_s[0] - sent_s, (with_text_s[-1] - with_text_s[0]) / max(1, output - 1)


def _completion_tokens(stream: bytes) -> int:
    """As the engine counted them, in the event before `[DONE]`.

    Only that event is read as JSON, and after the answer: a client that is busy would measure itself.
    """
    events = [line[5:].strip() for line in stream.splitlines() if line.startswith(b"data:")]
    if len(events) < 2 or events[-1] != b"[DONE]":
        raise NotMeasured(f"the stream did not end as it should: {stream[-300:]!r}")
    try:
        return int(json.loads(events[-2])["usage"]["completion_tokens"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotMeasured(f"no usage before the end of the stream: {events[-2][:300]!r}") from error
