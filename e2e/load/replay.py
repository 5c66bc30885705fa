"""A load whose every request is given: when it is sent, how long its prompt is and how many tokens it asks for.

Where :class:`~e2e.load.openloop.Load` draws requests from a rate, this plays a recorded traffic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from e2e.load.schedule import MAX_DURATION_S, MAX_REQUESTS, Sending

TOKENS_PER_MESSAGE: Final = 4
"""As the emulated engine counts a chat (`paceline_runtime.emulator.text`), and four bytes for each other token."""

SHORTEST_PROMPT_TOKENS: Final = TOKENS_PER_MESSAGE + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    at_s: float
    """After the start of the load."""
    prompt_tokens: int
    """Of the prompt as the emulated engine counts them; a real tokenizer may count others."""
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Streams, each with exactly its own number of output tokens, at its own moment."""

    requests: Sequence[Request]
    """By `at_s`."""
    timeout_s: float = 300.0
    """For one request, from its sending to the end of its answer."""
    stream: bool = True
    reuse_connections: bool = True
    ignore_eos: bool = True

    def __post_init__(self) -> None:
        moments = [one.at_s for one in self.requests]
        if not moments or moments != sorted(moments) or moments[0] < 0 or moments[-1] > MAX_DURATION_S:
            raise ValueError(f"requests: give some, by at_s, from 0 to {MAX_DURATION_S:g}")
        if len(moments) > MAX_REQUESTS:
            raise ValueError(f"requests are {len(moments)}: give at most {MAX_REQUESTS}")
        if any(one.prompt_tokens < SHORTEST_PROMPT_TOKENS or one.output_tokens < 1 for one in self.requests):
            raise ValueError(
                f"requests: give each at least {SHORTEST_PROMPT_TOKENS} prompt tokens and 1 output token"
            )

    def sendings(self) -> Iterator[Sending]:
        for one in self.requests:
            yield Sending(at_s=one.at_s, prompt=prompt_of(one.prompt_tokens), max_tokens=one.output_tokens)


def prompt_of(tokens: int) -> str:
    """A chat message that the emulated engine counts as so many tokens."""
    return " for" * (tokens - TOKENS_PER_MESSAGE)
