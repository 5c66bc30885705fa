"""One replica's scheduler, step by step: which tokens of which requests an engine step computes. Pure, no clock.

The reference that the fast simulator must equal, and what the emulated engine and `paceline timing check` run.
It follows vLLM V1's scheduler (0.32) with its defaults: first come, first served; chunked prefill; a request is
admitted only if its whole prompt fits the free KV cache at that moment; preemption by recompute; and asynchronous
scheduling, which composes a step while the one before it is computed:

    step            │ n, under way        │ n + 1, composed     │ n + 2
    who may join    │ came before n − 1   │ came before n       │ came before n + 1

An idle engine does not work ahead: where nothing runs, who waits is taken at once.

A caller loops: `schedule()`, wait `step.duration_s(timing)`, `complete(step)`; `add` and `abort` at any time. What is
left out: speculative decoding, priorities, LoRA, multi-modal inputs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from paceline_core.timing import StepTiming

KV_BLOCK_TOKENS: Final = 16
"""vLLM's default block size on GPUs: KV cache is given out and prefixes are matched in whole blocks."""

STEPS_AHEAD: Final = 1
"""Steps that are composed beyond the one under way. Who comes to a busy engine is in none of them."""


def kv_blocks(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // KV_BLOCK_TOKENS)


def usable_prefix_tokens(cached_tokens: int, *, total_tokens: int) -> int:
    """Prompt tokens that need no computing: whole blocks, and never the last token, which yields the first."""
    return min(cached_tokens, total_tokens - 1) // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS


@dataclass(slots=True, eq=False)
class _Sequence:
    request_id: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    earliest_step: int
    """The first that may take it in."""
    generated: int = 0
    computed: int = 0
    """Tokens whose keys and values lie in the cache."""
    blocks: int = 0

    @property
    def total(self) -> int:
        """Tokens known so far: prompt and generated ones."""
        return self.prompt_tokens + self.generated

    @property
    def decoding(self) -> bool:
        """Only the newest token has to be computed."""
        return self.generated > 0 and self.computed == self.total - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """A chunk of one prompt in a step."""

    request_id: int
    chunk_tokens: int
    prior_tokens: int
    """In the cache before the chunk."""
    last: bool
    """The prompt ends with this chunk: the step yields a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    decodes: tuple[int, ...]
    """Requests that get their next token, oldest admission first."""
    prefills: tuple[Prefill, ...]
    decode_context_tokens: int
    """Over all decoding requests: tokens that the new token attends to, itself included."""
    preempted: tuple[int, ...] = ()
    """Put back to the head of the queue before this step, to be computed again."""

    @property
    def tokens(self) -> int:
        return len(self.decodes) + sum(one.chunk_tokens for one in self.prefills)

    def duration_s(self, timing: StepTiming, *, times: int = 1) -> float:
        """Of the step, or of as many like it in a row, in which each context grows by a token a step."""
        return times * timing.step_s(
            prefills=[(one.chunk_tokens, one.prior_tokens) for one in self.prefills],
            decodes=len(self.decodes),
            decode_context_tokens=self.decode_context_tokens + len(self.decodes) * (times - 1) / 2,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    first_tokens: tuple[int, ...]
    """Requests that got their first token."""
    tokens: tuple[int, ...]
    """All requests that got a token, first ones included."""
    finished: tuple[int, ...]
    """Requests that got their last token; they are gone."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """The waiting queue, the running batch and the KV blocks of one replica."""

    kv_cache_tokens: int
    max_sequences: int = 256
    max_batched_tokens: int = 8192
    _waiting: deque[_Sequence] = field(default_factory=deque)
    _running: list[_Sequence] = field(default_factory=list)
    """In the order of admission. Only the last can be amid its prompt: whatever takes the rest of a step's
    budget ends admission in that step."""
    _free_blocks: int = 0
    _steps: int = 0
    """Scheduled so far."""
    preemptions: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_sequences <= self.max_batched_tokens:
            raise ValueError("max_sequences: write at least 1 and at most max_batched_tokens")
        self._free_blocks = self.blocks

    @property
    def blocks(self) -> int:
        return self.kv_cache_tokens // KV_BLOCK_TOKENS

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_cache_usage(self) -> float:
        return 1 - self._free_blocks / self.blocks

    def fits(self, prompt_tokens: int, output_tokens: int) -> bool:
        """Whether the request can ever run to its end alone."""
        return kv_blocks(prompt_tokens + output_tokens - 1) <= self.blocks

    def add(self, request_id: int, *, prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> None:
        """Queue a request that comes in a step or at its end. `cached_tokens` of its prompt are found in the
        prefix cache, now and after a preemption; they take room like its other tokens."""
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(f"request {request_id}: write at least one prompt token and one output token")
        if not self.fits(prompt_tokens, output_tokens):
            raise ValueError(
                f"request {request_id}: {prompt_tokens} + {output_tokens} tokens never fit a KV cache of "
                f"{self.kv_cache_tokens}"
            )
        earliest_step = self._steps + STEPS_AHEAD
        self._waiting.append(
            _Sequence(request_id, prompt_tokens, output_tokens, cached_tokens, earliest_step)
        )

    def abort(self, request_id: int) -> bool:
        """Drop a request. False: it is not here."""
        for queue in (self._running, self._waiting):
            for one in queue:
                if one.request_id == request_id:
                    self._free_blocks += one.blocks
                    queue.remove(one)
                    return True
        return False

    def schedule(self) -> Step | None:
        """The next step, with its KV blocks taken. None: nothing can run."""
        budget = self.max_batched_tokens
        decodes: list[_Sequence] = []
        prefills: list[Prefill] = []
        preempted: list[int] = []
        index = 0
        while index < len(self._running) and budget > 0:
            one = self._running[index]
            tokens = min(one.total - one.computed, budget)
            while not self._grow(one, tokens):
                victim = self._preempt_youngest()
                preempted.append(victim.request_id)
                if victim is one:
                    break
            else:
                budget -= tokens
                if one.decoding:
                    decodes.append(one)
                else:
                    prefills.append(self._prefill(one, tokens))
                index += 1
                continue
            break
        if not preempted:
            prefills.extend(self._admit(budget))
        if not decodes and not prefills:
            return None
        self._steps += 1
        return Step(
            decodes=tuple(one.request_id for one in decodes),
            prefills=tuple(prefills),
            decode_context_tokens=sum(one.computed + 1 for one in decodes),
            preempted=tuple(preempted),
        )

    def _admit(self, budget: int) -> Iterator[Prefill]:
        step = self._steps
        if self._waiting and not self._running:
            step = max(step, self._waiting[0].earliest_step)
        while budget > 0 and self._waiting and len(self._running) < self.max_sequences:
            one = self._waiting[0]
            if one.earliest_step > step or kv_blocks(one.total) > self._free_blocks:
                return
            one.computed = usable_prefix_tokens(one.cached_tokens, total_tokens=one.total)
            tokens = min(one.total - one.computed, budget)
            self._grow(one, tokens)
            self._running.append(self._waiting.popleft())
            budget -= tokens
            yield self._prefill(one, tokens)

    def _prefill(self, one: _Sequence, tokens: int) -> Prefill:
        return Prefill(
            request_id=one.request_id,
            chunk_tokens=tokens,
            prior_tokens=one.computed,
            last=one.computed + tokens == one.total,
        )

    def _grow(self, one: _Sequence, tokens: int) -> bool:
        more = kv_blocks(one.computed + tokens) - one.blocks
        if more > self._free_blocks:
            return False
        self._free_blocks -= more
        one.blocks += more
        return True

    def _preempt_youngest(self) -> _Sequence:
        one = self._running.pop()
        self._free_blocks += one.blocks
        one.blocks = one.computed = 0
        self._waiting.appendleft(one)
        self.preemptions += 1
        return one

    def repeats(self, step: Step) -> int:
        """How many steps like this one come in a row, itself counted, if nobody is added or aborted: until a
        request ends or blocks may run short. For `duration_s` and `complete` in one go, where steps are many."""
        if step.prefills or step.preempted or len(step.decodes) < len(self._running):
            return 1
        if self._waiting and self._waiting[0].earliest_step >= self._steps:
            return 1
        until_end = min(one.output_tokens - one.generated for one in self._running)
        return max(1, min(until_end, KV_BLOCK_TOKENS * (self._free_blocks // len(self._running))))

    def complete(self, step: Step, *, times: int = 1) -> StepResult:
        """The step is over, or as many like it as `repeats` allows: its requests have their tokens, and the
        finished ones are gone. Requests that were aborted since it was scheduled are left out."""
        self._steps += times - 1
        chunks = dict.fromkeys(step.decodes, 1) | {one.request_id: one.chunk_tokens for one in step.prefills}
        first: list[int] = []
        tokens: list[int] = []
        finished: list[int] = []
        for one in self._running:
            if one.request_id not in chunks:
                continue
            if times > 1:
                self._grow(one, times)
            one.computed += chunks[one.request_id] + times - 1
            if one.computed < one.total:
                continue
            one.generated += times
            tokens.append(one.request_id)
            if one.generated == 1:
                first.append(one.request_id)
            if one.generated == one.output_tokens:
                finished.append(one.request_id)
                self._free_blocks += one.blocks
        gone = set(finished)
        self._running = [one for one in self._running if one.request_id not in gone]
        return StepResult(first_tokens=tuple(first), tokens=tuple(tokens), finished=tuple(finished))
