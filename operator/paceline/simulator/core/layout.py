"""The arrays of a simulated service: what the compiled kernel reads and writes, and who is who in them.

`World` owns them, so that a run can stop at any second and go on. All of it is flat, because numba compiles it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline_core.batch import KV_BLOCK_TOKENS, STEPS_AHEAD

BLOCK_TOKENS: Final = KV_BLOCK_TOKENS
AHEAD: Final = STEPS_AHEAD
NONE: Final = -1

ABSENT, STARTING, READY, DRAINING = 0, 1, 2, 3
"""A slot for a replica."""
PENDING, WAITING, RUNNING, DONE, FAILED, HELD, SHED = 0, 1, 2, 3, 4, 5, 6
"""A request. HELD: at the gate, because no replica is ready. SHED: refused, because the queue was full."""

POWER_OF_TWO, SHORTEST_QUEUE, ROUND_ROBIN = 0, 1, 2

# Columns of `Engines.counts`.
IN_BATCH, IN_QUEUE, USED_BLOCKS, ALL_BLOCKS = 0, 1, 2, 3
DECODES = 4
"""Requests that get one token a step."""
PREFILLS = 5
"""Requests whose prompt is computed in the step under way."""
PARTIAL = 6
"""The request that is amid its prompt between two steps, or NONE."""
STEPS = 7
"""Steps since the engine started, up to the beginning of the run under way."""
NEXT_FINISH = 8
"""Least `finish_step` of the decoding requests."""
RUN_STEPS = 9
"""Steps of the run under way: a stretch in which nothing enters or leaves the batch."""
RUN_DONE = 10
"""How many of them are over and accounted for."""
RUN_ALLOCATED = 11
"""For how many of them the blocks are taken."""
HEAD, TAIL = 12, 13
"""Of the waiting queue."""
COUNTS = 14

# Columns of `Engines.run`: the run begins at RUN_BEGIN_S, its first step takes RUN_STEP_S, and each further
# step RUN_GROWTH_S more, because every context is one token longer.
RUN_BEGIN_S, RUN_STEP_S, RUN_GROWTH_S, RUN_END_S = 0, 1, 2, 3
CONTEXT = 4
"""Tokens that the next tokens of all decoding requests attend to, themselves included."""
SEEN_TOKENS = 5
"""Prompt tokens that went through this replica: how warm its prefix cache is."""
RUNS = 6

# Columns of `Engines.tallies`: counters since the start of the replica.
GENERATED_TOKENS, COMPUTED_PROMPT_TOKENS, CACHED_PROMPT_TOKENS, PREEMPTIONS = 0, 1, 2, 3
TALLIES = 4

# `Shared.totals`
NEXT_ARRIVAL, FIRSTS, FINISHED, ALL_PREEMPTIONS, TURN, HELD_FIRST, HELD_LAST = 0, 1, 2, 3, 4, 5, 6
LOST = 7
"""Requests that were shed or failed."""
TOTALS = 8

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.int8]
Flags = NDArray[np.bool_]


class Requests(NamedTuple):
    """One entry a request, by arrival."""

    arrival_s: Floats
    prompt: Ints
    output: Ints
    cached_share: Floats
    """Share of the prompt that a warm replica finds in its prefix cache."""
    cached: Ints
    """Tokens of it that the replica chosen does find."""
    generated: Ints
    """Exact between steps for what is not decoding; a decoding request is known by its `finish_step`."""
    computed: Ints
    finish_step: Ints
    """The engine's step after which a decoding request has its last token."""
    earliest_step: Ints
    """The engine's first step that may take a waiting request in."""
    state: Bytes
    following: Ints
    first_token_s: Floats
    done_s: Floats
    router: Ints
    replica: Ints


class Engines(NamedTuple):
    """One entry a slot."""

    status: Bytes
    counts: Ints
    run: Floats
    tallies: Floats
    decoding: Ints
    """Requests in the order of admission."""
    prefilling: Ints
    chunk: Ints
    phases: Ints
    """How many decoding requests need a new block in the steps whose number is this modulo the block size."""
    outstanding: Ints
    """By router: what it has sent and not got back."""
    timing: Floats
    """a_p, a_d, κ, δ"""
    knot_tokens: Floats
    knot_s: Floats
    knots: Ints


class Shared(NamedTuple):
    totals: Ints
    random: NDArray[np.uint64]
    firsts: Ints
    """Requests in the order of their first tokens."""
    finished: Ints


class Limits(NamedTuple):
    max_sequences: int
    max_batched_tokens: int
    max_queued: int
    """Requests that may wait at one replica; one more is shed."""
    router: int
    max_hold_s: float
    warm_tokens: float
    """Prompt tokens after which a replica finds half of what it would ever find in its prefix cache."""
