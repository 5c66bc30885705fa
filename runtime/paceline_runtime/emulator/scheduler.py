"""Which tokens a step computes: vLLM V1's scheduler, as far as time depends on it. Pure.

* Running sequences first, in order of arrival; what is left of the step's tokens goes to waiting ones.
* A prompt longer than what is left is cut: its next chunk shares the next step with the decodes.
* A block of the KV cache is taken when its first token is computed. Where none is left, the sequence that came
  last loses its blocks, waits at the head of the queue and computes prompt and output again.
* A waiting sequence joins when all of its tokens would fit, and not in a step that preempted another.

    ┌ step ─────────────────────────────────────────── max_batched_tokens ┐
    │ decode decode decode │ chunk of a running prompt │ chunk of a new one│
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

BLOCK_TOKENS = 16
"""vLLM's default size of a block of the KV cache."""


@dataclass(eq=False, slots=True, kw_only=True)
class Sequence:
    """One request in the engine."""

    prompt_tokens: int
    output_tokens: int
    """How many it will get."""
    cached_tokens: int = 0
    """Of the prompt, in the prefix cache: whole blocks, and not all of it."""
    produced: int = 0
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    blocks: int = 0
    preemptions: int = 0

    @property
    def finished(self) -> bool:
        return self.produced >= self.output_tokens

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.produced


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step computes."""

    chunks: tuple[tuple[Sequence, int], ...]
    """(sequence, tokens of it)"""
    prefills: tuple[tuple[int, int], ...]
    """(chunk tokens, tokens already in the cache before the chunk)"""
    decodes: int
    decode_context_tokens: int
    joined: tuple[Sequence, ...]
    """Those that ran before and were preempted too."""
    preempted: tuple[Sequence, ...]

    @property
    def tokens(self) -> int:
        return self.decodes + sum(chunk for chunk, _ in self.prefills)


class Scheduler:
    def __init__(self, *, max_sequences: int, max_batched_tokens: int, kv_cache_tokens: int) -> None:
        """The KV cache must hold the longest sequence, or that one would wait for ever."""
        self._max_sequences = max_sequences
        self._max_batched_tokens = max_batched_tokens
        self._blocks = kv_cache_tokens // BLOCK_TOKENS
        self._free_blocks = self._blocks
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def kv_cache_usage(self) -> float:
        return 1 - self._free_blocks / self._blocks

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._free(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def schedule(self) -> Step:
        """The next step. It has no chunks only if there is nothing to do."""
        budget = self._max_batched_tokens
        chunks: list[tuple[Sequence, int]] = []
        preempted: list[Sequence] = []
        place = 0
        while place < len(self.running) and budget > 0:
            sequence = self.running[place]
            chunk = min(sequence.tokens - sequence.computed, budget)
            while not (taken := self._take_blocks(sequence, chunk)) and sequence not in preempted:
                preempted.append(self._preempt_last())
            if not taken:
                break
            chunks.append((sequence, chunk))
            budget -= chunk
            place += 1
        joined: list[Sequence] = []
        while not preempted and self.waiting and budget > 0 and len(self.running) < self._max_sequences:
            sequence = self.waiting[0]
            if -(-sequence.tokens // BLOCK_TOKENS) > self._free_blocks:
                break
            self.running.append(self.waiting.popleft())
            sequence.computed = sequence.cached_tokens
            chunk = min(sequence.tokens - sequence.computed, budget)
            self._take_blocks(sequence, chunk)
            chunks.append((sequence, chunk))
            joined.append(sequence)
            budget -= chunk
        return _step(chunks, joined=joined, preempted=preempted)

    def complete(self, step: Step) -> list[Sequence]:
        """The step has ended: the sequences that got a token. Finished ones have left."""
        got: list[Sequence] = []
        for sequence, chunk in step.chunks:
            if not sequence.blocks:
                continue  # removed while the step ran
            sequence.computed += chunk
            if sequence.computed == sequence.tokens:
                sequence.produced += 1
                got.append(sequence)
        if any(sequence.finished for sequence in got):
            for sequence in got:
                if sequence.finished:
                    self._free(sequence)
            self.running = [sequence for sequence in self.running if not sequence.finished]
        return got

    def _take_blocks(self, sequence: Sequence, chunk: int) -> bool:
        """Blocks for this many more tokens; False if there are not enough."""
        more = -(-(sequence.computed + chunk) // BLOCK_TOKENS) - sequence.blocks
        if more > self._free_blocks:
            return False
        self._free_blocks -= more
        sequence.blocks += more
        return True

    def _preempt_last(self) -> Sequence:
        sequence = self.running.pop()
        self._free(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        return sequence

    def _free(self, sequence: Sequence) -> None:
        self._free_blocks += sequence.blocks
        sequence.blocks = 0


def _step(chunks: list[tuple[Sequence, int]], *, joined: list[Sequence], preempted: list[Sequence]) -> Step:
    prefills: list[tuple[int, int]] = []
    decodes = context = 0
    for sequence, chunk in chunks:
        if sequence.computed >= sequence.prompt_tokens and chunk == 1:
            decodes += 1
            context += sequence.computed + 1
        else:
            prefills.append((chunk, sequence.computed))
    return Step(
        chunks=tuple(chunks),
        prefills=tuple(prefills),
        decodes=decodes,
        decode_context_tokens=context,
        joined=tuple(joined),
        preempted=tuple(preempted),
    )
