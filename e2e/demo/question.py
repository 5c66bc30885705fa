"""One chat completion through the service's own endpoint, streamed and read to its end.

The answer counts only with a `finish_reason` and `[DONE]`: a stream that breaks after HTTP 200 looks fine to
whoever reads the status code alone.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass


class NoAnswer(Exception):
    """The endpoint refused, or the stream did not end as it should."""


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    time_to_first_token_s: float
    total_s: float
    chunks: int


def ask(
    base_url: str,
    *,
    model: str,
    question: str,
    max_tokens: int,
    timeout_s: float,
    show: Callable[[str], None],
) -> Answer:
    """Every piece of the answer goes to `show` as it comes."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{base_url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    started_s = time.monotonic()
    first_s: float | None = None
    pieces: list[str] = []
    finish_reason: str | None = None
    done = False
    # No proxy: the address is one of this machine's own networks.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout_s) as answer:
        for raw in answer:
            data = raw.decode().strip().removeprefix("data:").strip()
            if not data:
                continue
            if data == "[DONE]":
                done = True
                break
            event = json.loads(data)
            if "error" in event:
                raise NoAnswer(f"the stream ended in an error: {event['error']}")
            choice = event["choices"][0]
            finish_reason = choice.get("finish_reason") or finish_reason
            if piece := choice["delta"].get("content"):
                first_s = first_s or time.monotonic() - started_s
                pieces.append(piece)
                show(piece)
    if first_s is None or finish_reason is None or not done:
        raise NoAnswer(
            f"the stream ended early (finish_reason {finish_reason}, [DONE] {done}): {''.join(pieces)!r}"
        )
    return Answer("".join(pieces), first_s, time.monotonic() - started_s, len(pieces))
