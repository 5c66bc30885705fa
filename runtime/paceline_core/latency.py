"""Latency targets and what counts as a good request: the one definition for metrics, runtime, gate and tests.

Read by the middleware of the runtime (one count per request), by the gate (bucket edges), and written as
targets.json by the fleet. Pure: whoever measures passes the times in.

The objective is the share of requests that meet all their targets. The classes are half-open by prompt
length; the first match counts and the last is unbounded:

    prompt tokens   1 ........ 8192 | 8193 ............ ∞
    class               short       |       long
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

ELAPSED_HEADER = "x-paceline-elapsed-ms"
"""What the gate tells an engine: how long ago the request arrived at the gate. The clock of a target starts
there, time in the hold included, and the engine's clock knows nothing of it."""


class TargetsError(ValueError):
    """A targets.json that cannot be read. The message names the key and says what to write."""


class Outcome(StrEnum):
    """What one request was. `paceline_requests_total` has these as the label `outcome`."""

    GOOD = "good"
    LATE_TTFT = "late_ttft"
    LATE_TPOT = "late_tpot"
    LATE_BOTH = "late_both"
    FAILED = "failed"
    """408, 5xx, an error inside the stream, a time-out, or anything unfinished at the end: a miss."""
    REJECTED = "rejected"
    """429: shed by admission. A miss."""
    ABORTED_EARLY = "aborted_early"
    """The client left before its TTFT target had passed, without a token: neither good nor a miss."""
    ABORTED_LATE = "aborted_late"
    """The client left after its target had passed, or in mid-stream: a miss."""
    CLIENT_ERROR = "client_error"
    """400, 401, 403, 404, 413, 422: the request's own fault. Not in the denominator."""

    @property
    def counts(self) -> bool:
        """Whether the request is in the denominator of attainment."""
        return self not in (Outcome.ABORTED_EARLY, Outcome.CLIENT_ERROR)


_PER_THOUSAND = "timeToFirstTokenPerThousandPromptTokensMilliseconds"

CLIENT_ERROR_STATUS = frozenset({400, 401, 403, 404, 413, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTarget:
    """The targets of one class of prompts."""

    name: str
    max_prompt_tokens: int | None
    ttft_ms: int
    ttft_per_thousand_prompt_tokens_ms: int
    tpot_ms: int

    def ttft_target_s(self, prompt_tokens: int) -> float:
        """The time to the first token that a prompt of this length is due."""
        return (self.ttft_ms + self.ttft_per_thousand_prompt_tokens_ms * prompt_tokens / 1000) / 1000

    @property
    def tpot_target_s(self) -> float:
        return self.tpot_ms / 1000

    def takes(self, prompt_tokens: int) -> bool:
        return self.max_prompt_tokens is None or prompt_tokens <= self.max_prompt_tokens

    def judge_streamed(
        self, *, prompt_tokens: int, output_tokens: int, ttft_s: float, tpot_s: float | None
    ) -> Outcome:
        """A streamed request that ended well (2xx, finish_reason and [DONE] seen).

        `tpot_s` is (last − first token) / (output tokens − 1); with one token or none it has no meaning, and
        the first token alone decides.
        """
        late_first = ttft_s > self.ttft_target_s(prompt_tokens)
        late_rest = output_tokens > 1 and tpot_s is not None and tpot_s > self.tpot_target_s
        if late_first and late_rest:
            return Outcome.LATE_BOTH
        if late_first:
            return Outcome.LATE_TTFT
        return Outcome.LATE_TPOT if late_rest else Outcome.GOOD

    def judge_whole(self, *, prompt_tokens: int, output_tokens: int, end_to_end_s: float) -> Outcome:
        """A request answered in one piece: nobody saw its first token, so the whole time is held against the
        sum.

        Good iff end to end ≤ TTFT target + (output tokens − 1) × TPOT target. What is late cannot be split
        between the two: it is late by both.
        """
        allowed_s = self.ttft_target_s(prompt_tokens) + max(output_tokens - 1, 0) * self.tpot_target_s
        return Outcome.GOOD if end_to_end_s <= allowed_s else Outcome.LATE_BOTH

    def judge_aborted(self, *, prompt_tokens: int, elapsed_s: float, first_token_seen: bool) -> Outcome:
        """The client left before the end."""
        early = not first_token_seen and elapsed_s <= self.ttft_target_s(prompt_tokens)
        return Outcome.ABORTED_EARLY if early else Outcome.ABORTED_LATE


def judge_status(status: int) -> Outcome | None:
    """What an HTTP status alone decides; None for 2xx, where the body decides."""
    if 200 <= status < 300:
        return None
    if status == 429:
        return Outcome.REJECTED
    return Outcome.CLIENT_ERROR if status in CLIENT_ERROR_STATUS else Outcome.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """All classes of a service: targets.json."""

    classes: tuple[LatencyTarget, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise TargetsError("latencyClasses is empty: write at least one class")
        names = [one.name for one in self.classes]
        if len(set(names)) != len(names):
            raise TargetsError("latencyClasses: two classes have one name: write distinct names")
        *bounded, last = self.classes
        if last.max_prompt_tokens is not None:
            raise TargetsError("latencyClasses: the last class is bounded: write maxPromptTokens: null there")
        bounds = [one.max_prompt_tokens for one in bounded]
        known = [bound for bound in bounds if bound is not None]
        if len(known) != len(bounds) or known != sorted(set(known)):
            raise TargetsError("latencyClasses: write ascending maxPromptTokens in every class but the last")

    def classify(self, prompt_tokens: int) -> LatencyTarget:
        """The class of a prompt: the first that takes it."""
        return next(one for one in self.classes if one.takes(prompt_tokens))

    def ttft_edges_s(self, *, max_prompt_tokens: int) -> tuple[float, ...]:
        """Edges that a TTFT histogram needs to count these targets exactly, ascending.

        A target that grows with the prompt has no one edge; it gets those of its shortest and longest prompt.
        """
        edges: set[float] = set()
        shortest = 1
        for one in self.classes:
            longest = (
                max_prompt_tokens
                if one.max_prompt_tokens is None
                else min(one.max_prompt_tokens, max_prompt_tokens)
            )
            if one.ttft_per_thousand_prompt_tokens_ms == 0:
                edges.add(one.ttft_target_s(0))
            elif shortest <= longest:
                edges.update((one.ttft_target_s(shortest), one.ttft_target_s(longest)))
            shortest = (one.max_prompt_tokens or 0) + 1
        return tuple(sorted(edges))

    def tpot_edges_s(self) -> tuple[float, ...]:
        return tuple(sorted({one.tpot_target_s for one in self.classes}))

    def to_json(self) -> str:
        """The text of targets.json; the same targets give the same text."""
        return json.dumps(
            {
                "latencyClasses": [
                    {
                        "name": one.name,
                        "maxPromptTokens": one.max_prompt_tokens,
                        "timeToFirstTokenMilliseconds": one.ttft_ms,
                        _PER_THOUSAND: one.ttft_per_thousand_prompt_tokens_ms,
                        "timePerOutputTokenMilliseconds": one.tpot_ms,
                    }
                    for one in self.classes
                ]
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Targets:
        try:
            body = json.loads(text)
        except ValueError as error:
            raise TargetsError(f"targets.json is not JSON: {error}") from error
        if not isinstance(body, Mapping) or not isinstance(body.get("latencyClasses"), list):
            raise TargetsError('targets.json: write an object {"latencyClasses": [...]}')
        return cls(classes=tuple(_target(one, index) for index, one in enumerate(body["latencyClasses"])))


def _target(body: object, index: int) -> LatencyTarget:
    where = f"latencyClasses[{index}]"
    if not isinstance(body, Mapping):
        raise TargetsError(f"{where}: write an object")
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise TargetsError(f"{where}.name: write a name")
    bound = body.get("maxPromptTokens")
    return LatencyTarget(
        name=name,
        max_prompt_tokens=None if bound is None else _whole(body, "maxPromptTokens", where, least=1),
        ttft_ms=_whole(body, "timeToFirstTokenMilliseconds", where, least=1),
        ttft_per_thousand_prompt_tokens_ms=_whole(body, _PER_THOUSAND, where, least=0, default=0),
        tpot_ms=_whole(body, "timePerOutputTokenMilliseconds", where, least=1),
    )


def _whole(body: Mapping[str, Any], key: str, where: str, *, least: int, default: int | None = None) -> int:
    value = body.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise TargetsError(f"{where}.{key}: write a whole number of at least {least}")
    return value
