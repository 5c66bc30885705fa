"""One answer as it leaves the pod: when its tokens came, whether it is whole, and what it counts as.

The middleware feeds it what the server sends; it sends nothing and changes nothing. It runs on every
streamed chunk, so it looks for a few byte strings and parses no JSON. Token counts come from beside the
stream: see `Usage`.

What is looked for, in the form in which vLLM writes it (compact JSON; quotes inside a text are escaped
there, so a text cannot imitate a key):

    first token      a delta with a text that is not empty (a chat stream begins with a chunk that has none)
    finished         "finish_reason":"…", one for each choice; "abort" is an answer that the engine broke off
    end of stream    data: [DONE], or the response.completed event of /v1/responses
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from paceline_core.latency import LatencyTarget, Outcome, judge_status

_TEXT = re.compile(rb'"(?:content|text|reasoning|reasoning_content|refusal|arguments|name|delta)":"[^"]')
_FINISH = b'"finish_reason":"'
_BROKEN_OFF = b'"finish_reason":"abort"'
_DONE = b"data: [DONE]"
_RESPONSE_DONE = b"event: response.completed"
_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens":(\d+)')
_OUTPUT_TOKENS = re.compile(rb'"(?:completion|output)_tokens":(\d+)')


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request, over all its choices."""

    prompt_tokens: int
    output_tokens: int


class Answer:
    """The answer to one request. All times are of one clock that only goes forward, in seconds."""

    __slots__ = (
        "_broken_off",
        "_done",
        "_finishes",
        "_first_s",
        "_last",
        "_last_s",
        "_left_s",
        "_started_s",
        "status",
        "streamed",
        "whole",
    )

    def __init__(self, *, started_s: float) -> None:
        self._started_s = started_s
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._left_s: float | None = None
        self._finishes = 0
        self._broken_off = False
        self._done = False
        self._last = b""
        self.status: int | None = None
        self.streamed = False
        self.whole = False
        """Whether the server has sent all of it."""

    def begin(self, *, status: int, streamed: bool) -> None:
        self.status = status
        self.streamed = streamed

    def add(self, body: bytes, *, at_s: float) -> None:
        """A part of the body, just before it is sent."""
        if not body:
            return
        if self.streamed and self._first_s is None and _TEXT.search(body):
            self._first_s = at_s
        if _FINISH in body:
            self._finishes += body.count(_FINISH)
            self._broken_off = self._broken_off or _BROKEN_OFF in body
        if body.startswith(_DONE):
            self._done = True
        else:
            self._last_s = at_s
            self._last = body

    def client_left(self, *, at_s: float) -> None:
        if not self.whole and self._left_s is None:
            self._left_s = at_s

    @property
    def needs_usage(self) -> bool:
        """Whether the outcome depends on token counts."""
        return self._left_s is None and self.status is not None and 200 <= self.status < 300

    def usage_in_body(self) -> Usage | None:
        """The `usage` object in the last part of the body, where the server reports none beside it.

        /v1/responses ends its stream with an event that carries it; an embedding has no output tokens.
        """
        at = self._last.rfind(b'"usage":{')
        if at < 0:
            return None
        prompt = _PROMPT_TOKENS.search(self._last, at)
        output = _OUTPUT_TOKENS.search(self._last, at)
        if prompt is None:
            return None
        return Usage(int(prompt[1]), int(output[1]) if output else 0)

    def judge(self, target: LatencyTarget, *, usage: Usage | None, prompt_tokens: int | None) -> Outcome:
        """What the request counts as, now that the server is through with it.

        `prompt_tokens` is for a client that left: `usage` comes only with a whole answer. Left before its
        prompt was tokenised, a request is held to the target of the shortest prompt.
        """
        if self._left_s is not None:
            return target.judge_aborted(
                prompt_tokens=0 if prompt_tokens is None else prompt_tokens,
                elapsed_s=self._left_s - self._started_s,
                first_token_seen=self._first_s is not None,
            )
        if self.status is None or not self.whole:
            return Outcome.FAILED
        if (by_status := judge_status(self.status)) is not None:
            return by_status
        if usage is None or self._broken_off or self._last_s is None:
            return Outcome.FAILED
        # Choices of one request decode side by side, so each has its share of the tokens.
        output_tokens = -(-usage.output_tokens // max(self._finishes, 1))
        if not self.streamed:
            return target.judge_whole(
                prompt_tokens=usage.prompt_tokens,
                output_tokens=output_tokens,
                end_to_end_s=self._last_s - self._started_s,
            )
        if not ((self._done and self._finishes) or self._last.startswith(_RESPONSE_DONE)):
            return Outcome.FAILED
        # An answer without any text (the model stopped at once) is timed by its end.
        first_s = self._last_s if self._first_s is None else self._first_s
        return target.judge_streamed(
            prompt_tokens=usage.prompt_tokens,
            output_tokens=output_tokens,
            ttft_s=first_s - self._started_s,
            tpot_s=(self._last_s - first_s) / (output_tokens - 1) if output_tokens > 1 else None,
        )
