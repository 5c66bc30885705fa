"""Engines and router between two looks of the controller, compiled: every step of every replica, in order of time.

A step schedules as vLLM V1 does: first what runs (a decode is a chunk of one token, a prefill goes on), then what
waits, within a budget of tokens, of sequences and of KV blocks; where blocks end, the youngest is preempted and
computed again. The router takes the less loaded of two replicas drawn at random, by the counts that it has itself.

State lives in arrays that the caller owns (`World`), so that a run can stop at any second and go on.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK_TOKENS = 16
NONE = -1

ABSENT, STARTING, READY, DRAINING = 0, 1, 2, 3
PENDING, WAITING, RUNNING, DONE, FAILED, HELD = 0, 1, 2, 3, 4, 5

POWER_OF_TWO, SHORTEST_QUEUE, ROUND_ROBIN = 0, 1, 2


@njit(cache=True)
def _blocks(tokens):
    return (tokens + BLOCK_TOKENS - 1) // BLOCK_TOKENS


@njit(cache=True)
def _tokens_s(knot_tokens, knot_s, knots, tokens):
    """Piecewise linear; beyond the last knot at the last slope."""
    if tokens <= knot_tokens[0]:
        return knot_s[0]
    right = 1
    while right < knots - 1 and knot_tokens[right] < tokens:
        right += 1
    x0, x1 = knot_tokens[right - 1], knot_tokens[right]
    return knot_s[right - 1] + (knot_s[right] - knot_s[right - 1]) * (tokens - x0) / (x1 - x0)


@njit(cache=True)
def _random(seed_state):
    """xorshift64*: the same numbers whatever else was simulated."""
    x = seed_state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    seed_state[0] = x
    return np.float64((x * np.uint64(2685821657736338717)) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _pick(router, kind, status, outstanding, seed_state, turn):
    """A ready replica for one request; NONE where there is none."""
    ready = 0
    for r in range(len(status)):
        if status[r] == READY:
            ready += 1
    if ready == 0:
        return NONE
    if kind == SHORTEST_QUEUE:
        best = NONE
        for r in range(len(status)):
            if status[r] == READY and (best == NONE or outstanding[:, r].sum() < outstanding[:, best].sum()):
                best = r
        return best
    if kind == ROUND_ROBIN:
        at = turn[0] % ready
        turn[0] += 1
        return _nth_ready(status, at)
    first = int(_random(seed_state) * ready)
    if ready == 1:
        return _nth_ready(status, 0)
    second = int(_random(seed_state) * (ready - 1))
    if second >= first:
        second += 1
    a, b = _nth_ready(status, first), _nth_ready(status, second)
    return a if outstanding[router, a] <= outstanding[router, b] else b


@njit(cache=True)
def _nth_ready(status, n):
    for r in range(len(status)):
        if status[r] == READY:
            if n == 0:
                return r
            n -= 1
    return NONE


@njit(cache=True)
def _begin_step(
    r,
    now,
    prompt,
    generated,
    computed,
    held_blocks,
    state,
    following,
    head,
    tail,
    running,
    chunk,
    counts,
    timing,
    knot_tokens,
    knot_s,
    knots,
    max_sequences,
    max_batched,
    totals,
):
    """Schedules a step and returns when it ends; infinity if there is nothing to do.

    counts[r] = running, waiting, blocks used, blocks in all. timing[r] = a_p, a_d, κ, δ.
    """
    budget = max_batched
    preempted = False
    i = 0
    while i < counts[r, 0]:
        q = running[r, i]
        need = min(prompt[q] + generated[q] - computed[q], budget)
        wanted = _blocks(computed[q] + need) - held_blocks[q]
        while counts[r, 2] + wanted > counts[r, 3]:
            last = counts[r, 0] - 1
            victim = running[r, last]
            counts[r, 0] = last
            counts[r, 2] -= held_blocks[victim]
            held_blocks[victim] = 0
            computed[victim] = 0
            state[victim] = WAITING
            following[victim] = head[r]
            head[r] = victim
            if tail[r] == NONE:
                tail[r] = victim
            counts[r, 1] += 1
            totals[0] += 1
            preempted = True
            if last == i:
                break
        if i >= counts[r, 0]:
            break
        counts[r, 2] += wanted
        held_blocks[q] += wanted
        chunk[r, i] = need
        budget -= need
        i += 1
    while not preempted and budget > 0 and counts[r, 0] < max_sequences and head[r] != NONE:
        q = head[r]
        need = min(prompt[q] + generated[q] - computed[q], budget)
        wanted = _blocks(computed[q] + need)
        if counts[r, 2] + wanted > counts[r, 3]:
            break
        head[r] = following[q]
        if head[r] == NONE:
            tail[r] = NONE
        counts[r, 1] -= 1
        counts[r, 2] += wanted
        held_blocks[q] = wanted
        state[q] = RUNNING
        running[r, counts[r, 0]] = q
        chunk[r, counts[r, 0]] = need
        counts[r, 0] += 1
        budget -= need
    n = counts[r, 0]
    if n == 0:
        return np.inf
    tokens, work, context = 0, 0.0, 0.0
    for i in range(n):
        q, c = running[r, i], chunk[r, i]
        tokens += c
        if c == 1 and computed[q] >= prompt[q]:
            context += computed[q]
        else:
            work += c * (computed[q] + c / 2)
    gpu_s = (
        _tokens_s(knot_tokens[r], knot_s[r], knots[r], tokens) + timing[r, 0] * work + timing[r, 1] * context
    )
    return now + timing[r, 2] * gpu_s + timing[r, 3]


@njit(cache=True)
def _end_step(
    r,
    now,
    prompt,
    output,
    generated,
    computed,
    held_blocks,
    state,
    first_token_s,
    done_s,
    router_of,
    outstanding,
    running,
    chunk,
    counts,
    firsts,
    firsts_count,
    finished,
    finished_count,
    token_counts,
):
    """Tokens come out at the end of a step. Keeps the order of what runs on: the youngest is last."""
    kept = 0
    for i in range(counts[r, 0]):
        q = running[r, i]
        computed[q] += chunk[r, i]
        token_counts[0] += chunk[r, i]
        if computed[q] >= prompt[q] + generated[q]:
            generated[q] += 1
            if generated[q] == 1:
                first_token_s[q] = now
                firsts[firsts_count[0]] = q
                firsts_count[0] += 1
            if generated[q] >= output[q]:
                state[q] = DONE
                done_s[q] = now
                counts[r, 2] -= held_blocks[q]
                held_blocks[q] = 0
                outstanding[router_of[q], r] -= 1
                finished[finished_count[0]] = q
                finished_count[0] += 1
                continue
        running[r, kept] = q
        kept += 1
    counts[r, 0] = kept


@njit(cache=True)
def advance(
    until_s,
    clock,
    arrival_s,
    prompt,
    output,
    generated,
    computed,
    held_blocks,
    state,
    following,
    first_token_s,
    done_s,
    router_of,
    replica_of,
    head,
    tail,
    held,
    status,
    step_end_s,
    running,
    chunk,
    counts,
    outstanding,
    timing,
    knot_tokens,
    knot_s,
    knots,
    firsts,
    firsts_count,
    finished,
    finished_count,
    seed_state,
    turn,
    totals,
    token_counts,
    router_kind,
    max_sequences,
    max_batched,
    max_hold_s,
):
    """Everything that happens before `until_s`. clock[0]: the next arrival. held: first and last of the gate's queue."""
    routers = outstanding.shape[0]
    while True:
        at, r = until_s, NONE
        for i in range(len(status)):
            if step_end_s[i] < at:
                at, r = step_end_s[i], i
        arriving = clock[0]
        if arriving < len(arrival_s) and arrival_s[arriving] < at:
            clock[0] += 1
            q = arriving
            now = arrival_s[q]
            router_of[q] = q % routers
            to = NONE
            if held[0] == NONE:
                to = _pick(router_of[q], router_kind, status, outstanding, seed_state, turn)
            if to == NONE:
                state[q] = HELD
                following[q] = NONE
                if held[0] == NONE:
                    held[0] = q
                else:
                    following[held[1]] = q
                held[1] = q
                continue
            _enqueue(q, to, state, following, replica_of, router_of, outstanding, head, tail, counts)
            if step_end_s[to] == np.inf:
                step_end_s[to] = _begin_step(
                    to, now, prompt, generated, computed, held_blocks, state, following, head, tail,
                    running, chunk, counts, timing, knot_tokens, knot_s, knots, max_sequences, max_batched,
                    totals,
                )  # fmt: skip
            continue
        if r == NONE:
            break
        _end_step(
            r, at, prompt, output, generated, computed, held_blocks, state, first_token_s, done_s, router_of,
            outstanding, running, chunk, counts, firsts, firsts_count, finished, finished_count, token_counts,
        )  # fmt: skip
        step_end_s[r] = _begin_step(
            r, at, prompt, generated, computed, held_blocks, state, following, head, tail, running, chunk,
            counts, timing, knot_tokens, knot_s, knots, max_sequences, max_batched, totals,
        )  # fmt: skip
    while held[0] != NONE and until_s - arrival_s[held[0]] > max_hold_s:
        q = held[0]
        state[q] = FAILED
        held[0] = following[q]
    while held[0] != NONE:
        q = held[0]
        to = _pick(router_of[q], router_kind, status, outstanding, seed_state, turn)
        if to == NONE:
            break
        held[0] = following[q]
        _enqueue(q, to, state, following, replica_of, router_of, outstanding, head, tail, counts)
        if step_end_s[to] == np.inf:
            step_end_s[to] = _begin_step(
                to, until_s, prompt, generated, computed, held_blocks, state, following, head, tail, running,
                chunk, counts, timing, knot_tokens, knot_s, knots, max_sequences, max_batched, totals,
            )  # fmt: skip


@njit(cache=True)
def _enqueue(q, to, state, following, replica_of, router_of, outstanding, head, tail, counts):
    state[q] = WAITING
    replica_of[q] = to
    outstanding[router_of[q], to] += 1
    following[q] = NONE
    if head[to] == NONE:
        head[to] = q
    else:
        following[tail[to]] = q
    tail[to] = q
    counts[to, 1] += 1
