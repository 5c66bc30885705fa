"""The order of events of a simulated service, compiled: arrivals, the router's choice, the ends of runs, the gate.

The router takes the less loaded of two replicas drawn at random, by the counts that it has itself, as `vllm-router`
does; each request goes through one of the routers at random. `World` calls `advance` from one stop to the next.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from paceline.simulator.core.kernel import catch_up, end_run, enqueue, next_run_end
from paceline.simulator.core.layout import (
    FAILED,
    HELD,
    HELD_FIRST,
    HELD_LAST,
    LOST,
    NEXT_ARRIVAL,
    NONE,
    READY,
    ROUND_ROBIN,
    SHORTEST_QUEUE,
    TURN,
)


@njit(cache=True)
def _random(state):
    """xorshift64*: the same numbers whatever else was simulated."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return np.float64((x * np.uint64(2685821657736338717)) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _nth_ready(status, slots, n):
    for r in range(slots):
        if status[r] == READY:
            if n == 0:
                return r
            n -= 1
    return NONE


@njit(cache=True)
def _pick(engines, shared, kind, router, slots):
    """A ready replica for one request; NONE where there is none."""
    ready = 0
    for r in range(slots):
        if engines.status[r] == READY:
            ready += 1
    if ready == 0:
        return NONE
    if kind == SHORTEST_QUEUE:
        best, least = NONE, 0
        for r in range(slots):
            if engines.status[r] == READY:
                load = engines.outstanding[:, r].sum()
                if best == NONE or load < least:
                    best, least = r, load
        return best
    if kind == ROUND_ROBIN:
        at = shared.totals[TURN] % ready
        shared.totals[TURN] += 1
        return _nth_ready(engines.status, slots, at)
    if ready == 1:
        return _nth_ready(engines.status, slots, 0)
    first = int(_random(shared.random) * ready)
    second = int(_random(shared.random) * (ready - 1))
    if second >= first:
        second += 1
    a, b = _nth_ready(engines.status, slots, first), _nth_ready(engines.status, slots, second)
    return a if engines.outstanding[router, a] <= engines.outstanding[router, b] else b


@njit(cache=True)
def _hold(requests, shared, q):
    totals = shared.totals
    requests.state[q] = HELD
    requests.following[q] = NONE
    if totals[HELD_FIRST] == NONE:
        totals[HELD_FIRST] = q
    else:
        requests.following[totals[HELD_LAST]] = q
    totals[HELD_LAST] = q


@njit(cache=True)
def _release(requests, engines, shared, limits, slots, now):
    """Held requests go to replicas that have become ready; those held too long fail."""
    totals = shared.totals
    while totals[HELD_FIRST] != NONE:
        q = totals[HELD_FIRST]
        if now - requests.arrival_s[q] > limits.max_hold_s:
            totals[HELD_FIRST] = requests.following[q]
            requests.state[q] = FAILED
            totals[LOST] += 1
            continue
        to = _pick(engines, shared, limits.router, requests.router[q], slots)
        if to == NONE:
            return
        totals[HELD_FIRST] = requests.following[q]
        enqueue(requests, engines, shared, limits, q, to, now)


@njit(cache=True)
def advance(requests, engines, shared, limits, slots, until_s):
    """Everything that happens before `until_s`."""
    totals = shared.totals
    routers = engines.outstanding.shape[0]
    while True:
        at, r = next_run_end(engines, slots)
        q = totals[NEXT_ARRIVAL]
        if q < len(requests.arrival_s) and requests.arrival_s[q] < min(at, until_s):
            totals[NEXT_ARRIVAL] += 1
            requests.router[q] = int(_random(shared.random) * routers)
            to = NONE
            if totals[HELD_FIRST] == NONE:
                to = _pick(engines, shared, limits.router, requests.router[q], slots)
            if to == NONE:
                _hold(requests, shared, q)
            else:
                enqueue(requests, engines, shared, limits, q, to, requests.arrival_s[q])
        elif at < until_s:
            end_run(requests, engines, shared, limits, r, at)
        else:
            break
    _release(requests, engines, shared, limits, slots, until_s)
    for i in range(slots):
        catch_up(engines, i, until_s)
