"""Engines and router between two looks of the controller, compiled: all events of all replicas in order of time.

It schedules as `paceline_core.batch` does and times steps as `StepTiming` does, and is as exact, but a stretch of
steps in which only decoding happens and nobody comes or goes (a *run*) is one event. Over a run of k steps with n
requests every context grows by one token a step, so the time is an arithmetic series, and the blocks needed depend
only on each request's place in its last block, counted per place (`phases`). Tests hold the equality.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from paceline.simulator.core.layout import (
    AHEAD,
    ALL_BLOCKS,
    ALL_PREEMPTIONS,
    BLOCK_TOKENS,
    CACHED_PROMPT_TOKENS,
    COMPUTED_PROMPT_TOKENS,
    CONTEXT,
    DECODES,
    DONE,
    FAILED,
    FINISHED,
    FIRSTS,
    GENERATED_TOKENS,
    HEAD,
    IN_BATCH,
    IN_QUEUE,
    LOST,
    NEXT_FINISH,
    NONE,
    PARTIAL,
    PREEMPTIONS,
    PREFILLS,
    RUN_ALLOCATED,
    RUN_BEGIN_S,
    RUN_DONE,
    RUN_END_S,
    RUN_GROWTH_S,
    RUN_STEP_S,
    RUN_STEPS,
    RUNNING,
    SEEN_TOKENS,
    SHED,
    STEPS,
    TAIL,
    USED_BLOCKS,
    WAITING,
)

NEVER = np.iinfo(np.int64).max


@njit(cache=True)
def _blocks(tokens):
    return (tokens + BLOCK_TOKENS - 1) // BLOCK_TOKENS


@njit(cache=True)
def _tokens_s(engines, r, tokens):
    """`StepTiming.tokens_s`."""
    knot_tokens, knot_s, last = engines.knot_tokens[r], engines.knot_s[r], engines.knots[r] - 1
    right = 1
    while right < last and knot_tokens[right] < tokens:
        right += 1
    x0, x1 = knot_tokens[right - 1], knot_tokens[right]
    y0, y1 = knot_s[right - 1], knot_s[right]
    return y0 + (y1 - y0) * (max(tokens, knot_tokens[0]) - x0) / (x1 - x0)


@njit(cache=True)
def _phase(requests, q):
    """The step number, modulo the block size, in which a decoding request needs a new block."""
    return (requests.finish_step[q] - (requests.prompt[q] + requests.output[q] - 1)) % BLOCK_TOKENS


@njit(cache=True)
def _run_s(engines, r, steps):
    """What so many steps of the run under way take."""
    run = engines.run[r]
    return run[RUN_STEP_S] * steps + run[RUN_GROWTH_S] * (steps * (steps - 1) / 2)


@njit(cache=True)
def _steps_until(engines, r, at_s):
    """The least number of steps of the run whose end lies after `at_s`."""
    run = engines.run[r]
    left_s = at_s - run[RUN_BEGIN_S]
    half = run[RUN_GROWTH_S] / 2
    if half > 0.0:
        b = run[RUN_STEP_S] - half
        guess = (math.sqrt(b * b + 4 * half * max(left_s, 0.0)) - b) / (2 * half)
    else:
        guess = left_s / run[RUN_STEP_S]
    steps = max(int(guess), 1)
    while steps > 1 and run[RUN_BEGIN_S] + _run_s(engines, r, steps - 1) > at_s:
        steps -= 1
    while run[RUN_BEGIN_S] + _run_s(engines, r, steps) <= at_s:
        steps += 1
    return steps


@njit(cache=True)
def _allocate(engines, r, steps):
    """Take the blocks of the run's steps up to this one."""
    c = engines.counts[r]
    while c[RUN_ALLOCATED] < steps:
        if steps - c[RUN_ALLOCATED] >= BLOCK_TOKENS:
            cycles = (steps - c[RUN_ALLOCATED]) // BLOCK_TOKENS
            c[USED_BLOCKS] += cycles * c[DECODES]
            c[RUN_ALLOCATED] += cycles * BLOCK_TOKENS
        else:
            c[USED_BLOCKS] += engines.phases[r, (c[STEPS] + c[RUN_ALLOCATED]) % BLOCK_TOKENS]
            c[RUN_ALLOCATED] += 1


@njit(cache=True)
def _steps_that_fit(engines, r, most):
    """For how many steps of a run the free blocks last."""
    c = engines.counts[r]
    free = c[ALL_BLOCKS] - c[USED_BLOCKS]
    if (most // BLOCK_TOKENS + 1) * c[DECODES] <= free:
        return most
    cycles = free // c[DECODES]
    free -= cycles * c[DECODES]
    steps = cycles * BLOCK_TOKENS
    while steps < most:
        free -= engines.phases[r, (c[STEPS] + steps) % BLOCK_TOKENS]
        if free < 0:
            break
        steps += 1
    return min(steps, most)


@njit(cache=True)
def _find_next_finish(requests, engines, r):
    least = NEVER
    for i in range(engines.counts[r, DECODES]):
        least = min(least, requests.finish_step[engines.decoding[r, i]])
    engines.counts[r, NEXT_FINISH] = least


@njit(cache=True)
def _requeue(requests, engines, shared, r, q):
    """Preempted: back to the head of the queue, to be computed again."""
    c = engines.counts[r]
    c[USED_BLOCKS] -= _blocks(requests.computed[q])
    requests.computed[q] = 0
    requests.state[q] = WAITING
    requests.following[q] = c[HEAD]
    c[HEAD] = q
    if c[TAIL] == NONE:
        c[TAIL] = q
    c[IN_QUEUE] += 1
    shared.totals[ALL_PREEMPTIONS] += 1
    engines.tallies[r, PREEMPTIONS] += 1


@njit(cache=True)
def _preempt_youngest(requests, engines, shared, r):
    c = engines.counts[r]
    if c[PARTIAL] != NONE:
        _requeue(requests, engines, shared, r, c[PARTIAL])
        c[PARTIAL] = NONE
        return
    c[DECODES] -= 1
    q = engines.decoding[r, c[DECODES]]
    requests.generated[q] = requests.output[q] - (requests.finish_step[q] - c[STEPS])
    requests.computed[q] = requests.prompt[q] + requests.generated[q] - 1
    engines.phases[r, _phase(requests, q)] -= 1
    engines.run[r, CONTEXT] -= requests.computed[q] + 1
    _requeue(requests, engines, shared, r, q)
    if requests.finish_step[q] == c[NEXT_FINISH]:
        _find_next_finish(requests, engines, r)


@njit(cache=True)
def _take(requests, engines, r, q, budget):
    """The next chunk of a prompt joins the step. Returns its tokens."""
    c = engines.counts[r]
    tokens = min(requests.prompt[q] + requests.generated[q] - requests.computed[q], budget)
    c[USED_BLOCKS] += _blocks(requests.computed[q] + tokens) - _blocks(requests.computed[q])
    engines.prefilling[r, c[PREFILLS]] = q
    engines.chunk[r, c[PREFILLS]] = tokens
    c[PREFILLS] += 1
    return tokens


@njit(cache=True)
def _begin_run(requests, engines, shared, limits, r, now):
    """Schedules a step, and with it all the steps that are certain to be alike."""
    c, run, timing = engines.counts[r], engines.run[r], engines.timing[r]
    preempted = False
    while c[USED_BLOCKS] + engines.phases[r, c[STEPS] % BLOCK_TOKENS] > c[ALL_BLOCKS]:
        _preempt_youngest(requests, engines, shared, r)
        preempted = True
    c[PREFILLS] = c[RUN_DONE] = c[RUN_ALLOCATED] = 0
    _allocate(engines, r, 1)
    budget = limits.max_batched_tokens - c[DECODES]
    if c[PARTIAL] != NONE and budget > 0:
        q = c[PARTIAL]
        tokens = min(requests.prompt[q] + requests.generated[q] - requests.computed[q], budget)
        more = _blocks(requests.computed[q] + tokens) - _blocks(requests.computed[q])
        if c[USED_BLOCKS] + more > c[ALL_BLOCKS]:
            _preempt_youngest(requests, engines, shared, r)
            preempted = True
        else:
            budget -= _take(requests, engines, r, q, budget)
    step = c[STEPS]
    if c[HEAD] != NONE and c[DECODES] == 0 and c[PARTIAL] == NONE:
        # An idle engine does not work ahead.
        step = max(step, requests.earliest_step[c[HEAD]])
    while (
        not preempted and budget > 0 and c[HEAD] != NONE and c[DECODES] + c[PREFILLS] < limits.max_sequences
    ):
        q = c[HEAD]
        if requests.earliest_step[q] > step:
            break
        total = requests.prompt[q] + requests.generated[q]
        if c[USED_BLOCKS] + _blocks(total) > c[ALL_BLOCKS]:
            break
        c[HEAD] = requests.following[q]
        if c[HEAD] == NONE:
            c[TAIL] = NONE
        c[IN_QUEUE] -= 1
        requests.state[q] = RUNNING
        cached = min(requests.cached[q], total - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        requests.computed[q] = cached
        engines.tallies[r, CACHED_PROMPT_TOKENS] += cached
        c[USED_BLOCKS] += _blocks(cached)
        budget -= _take(requests, engines, r, q, budget)
    c[IN_BATCH] = c[DECODES] + c[PREFILLS]
    if c[PARTIAL] != NONE and c[PREFILLS] == 0:
        c[IN_BATCH] += 1
    run[RUN_BEGIN_S] = now
    if c[IN_BATCH] == 0:
        run[RUN_END_S] = np.inf
        return
    tokens, work = c[DECODES], 0.0
    for i in range(c[PREFILLS]):
        chunk = engines.chunk[r, i]
        tokens += chunk
        work += chunk * (requests.computed[engines.prefilling[r, i]] + chunk / 2)
    gpu_s = _tokens_s(engines, r, tokens) + timing[0] * work + timing[1] * run[CONTEXT]
    run[RUN_STEP_S] = timing[2] * gpu_s + timing[3]
    run[RUN_GROWTH_S] = timing[2] * timing[1] * c[DECODES]
    steps = 1
    if c[PREFILLS] == 0 and not preempted:
        most = c[NEXT_FINISH] - c[STEPS]
        if c[HEAD] != NONE and requests.earliest_step[c[HEAD]] > c[STEPS]:
            most = min(most, requests.earliest_step[c[HEAD]] - c[STEPS])
        c[USED_BLOCKS] -= engines.phases[r, c[STEPS] % BLOCK_TOKENS]
        steps = _steps_that_fit(engines, r, most)
        c[USED_BLOCKS] += engines.phases[r, c[STEPS] % BLOCK_TOKENS]
    c[RUN_STEPS] = steps
    run[RUN_END_S] = now + _run_s(engines, r, steps)


@njit(cache=True)
def _finish(requests, engines, shared, r, q, now):
    requests.state[q] = DONE
    requests.done_s[q] = now
    requests.generated[q] = requests.output[q]
    engines.counts[r, USED_BLOCKS] -= _blocks(requests.prompt[q] + requests.output[q] - 1)
    engines.outstanding[requests.router[q], r] -= 1
    shared.finished[shared.totals[FINISHED]] = q
    shared.totals[FINISHED] += 1


@njit(cache=True)
def _end_run(requests, engines, shared, r, now):
    """Tokens come out, the finished leave, and prompts that are complete begin to decode."""
    c, run, tallies = engines.counts[r], engines.run[r], engines.tallies[r]
    _allocate(engines, r, c[RUN_STEPS])
    tallies[GENERATED_TOKENS] += c[DECODES] * (c[RUN_STEPS] - c[RUN_DONE])
    c[STEPS] += c[RUN_STEPS]
    run[CONTEXT] += c[DECODES] * c[RUN_STEPS]
    if c[DECODES] > 0 and c[NEXT_FINISH] == c[STEPS]:
        kept = 0
        for i in range(c[DECODES]):
            q = engines.decoding[r, i]
            if requests.finish_step[q] == c[STEPS]:
                engines.phases[r, _phase(requests, q)] -= 1
                run[CONTEXT] -= requests.prompt[q] + requests.output[q]
                _finish(requests, engines, shared, r, q, now)
            else:
                engines.decoding[r, kept] = q
                kept += 1
        c[DECODES] = kept
        _find_next_finish(requests, engines, r)
    if c[PREFILLS] > 0:
        c[PARTIAL] = NONE
    for i in range(c[PREFILLS]):
        q, chunk = engines.prefilling[r, i], engines.chunk[r, i]
        requests.computed[q] += chunk
        tallies[COMPUTED_PROMPT_TOKENS] += chunk
        if requests.computed[q] < requests.prompt[q] + requests.generated[q]:
            c[PARTIAL] = q
            continue
        requests.generated[q] += 1
        tallies[GENERATED_TOKENS] += 1
        if requests.generated[q] == 1:
            requests.first_token_s[q] = now
            run[SEEN_TOKENS] += requests.prompt[q]
            shared.firsts[shared.totals[FIRSTS]] = q
            shared.totals[FIRSTS] += 1
        if requests.generated[q] == requests.output[q]:
            _finish(requests, engines, shared, r, q, now)
            continue
        requests.finish_step[q] = c[STEPS] + requests.output[q] - requests.generated[q]
        engines.phases[r, _phase(requests, q)] += 1
        run[CONTEXT] += requests.computed[q] + 1
        engines.decoding[r, c[DECODES]] = q
        c[DECODES] += 1
        c[NEXT_FINISH] = min(c[NEXT_FINISH], requests.finish_step[q])


@njit(cache=True)
def enqueue(requests, engines, shared, limits, q, r, now):
    """A request reaches a replica. It waits for the step under way and for those that are composed ahead; a run
    that could take it in after them ends there."""
    c, run = engines.counts[r], engines.run[r]
    requests.replica[q] = r
    if _blocks(requests.prompt[q] + requests.output[q] - 1) > c[ALL_BLOCKS]:
        requests.state[q] = FAILED
        shared.totals[LOST] += 1
        return
    if c[IN_QUEUE] + c[IN_BATCH] >= limits.max_sequences + limits.max_queued:
        requests.state[q] = SHED
        shared.totals[LOST] += 1
        return
    warmth = run[SEEN_TOKENS] / (run[SEEN_TOKENS] + limits.warm_tokens)
    requests.cached[q] = int(requests.cached_share[q] * warmth * requests.prompt[q])
    requests.state[q] = WAITING
    engines.outstanding[requests.router[q], r] += 1
    requests.following[q] = NONE
    first = c[HEAD] == NONE
    if first:
        c[HEAD] = q
    else:
        requests.following[c[TAIL]] = q
    c[TAIL] = q
    c[IN_QUEUE] += 1
    if run[RUN_END_S] == np.inf:
        requests.earliest_step[q] = c[STEPS]
        _begin_run(requests, engines, shared, limits, r, now)
        return
    steps = min(_steps_until(engines, r, now), c[RUN_STEPS]) + AHEAD
    requests.earliest_step[q] = c[STEPS] + steps
    if first and steps < c[RUN_STEPS] and c[IN_BATCH] < limits.max_sequences:
        c[RUN_STEPS] = steps
        run[RUN_END_S] = run[RUN_BEGIN_S] + _run_s(engines, r, steps)


@njit(cache=True)
def next_run_end(engines, slots):
    """When, and at which replica."""
    at, r = np.inf, NONE
    for i in range(slots):
        if engines.run[i, RUN_END_S] < at:
            at, r = engines.run[i, RUN_END_S], i
    return at, r


@njit(cache=True)
def end_run(requests, engines, shared, limits, r, now):
    """The run of a replica is over, and the next one begins."""
    _end_run(requests, engines, shared, r, now)
    _begin_run(requests, engines, shared, limits, r, now)


@njit(cache=True)
def catch_up(engines, r, now):
    """Account for the steps of the run under way that are over. Changes nothing about what is to come."""
    c = engines.counts[r]
    if engines.run[r, RUN_END_S] == np.inf or c[RUN_STEPS] == 1:
        return
    done = min(_steps_until(engines, r, now), c[RUN_STEPS]) - 1
    if done > c[RUN_DONE]:
        engines.tallies[r, GENERATED_TOKENS] += c[DECODES] * (done - c[RUN_DONE])
        c[RUN_DONE] = done
    _allocate(engines, r, done + 1)
