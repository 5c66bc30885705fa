"""The counters and histograms that the engines and the gate of a simulated service export, brought up to date, compiled.

`Scrapes` owns the rows and calls `count` at each scrape. A row holds all counters of one tensor-parallel size, and
row 0 those of the gate, for all.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from paceline_core.timing import FRONT_S

TTFT_EDGES_S: Final = np.array(
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
     80.0, 160.0, 640.0, 2560.0]
)  # fmt: skip
TPOT_EDGES_S: Final = np.array(
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0]
)  # fmt: skip
LENGTH_EDGES: Final = np.array([m * 10.0**e for e in range(6) for m in (1, 2, 5)])

(
    ARRIVALS, ARRIVED_PROMPT, FIRSTS, TTFT_SUM, FINISHED, OUTPUT_SUM, TPOTS, TPOT_SUM, REQUEST_SUM, GOOD, JUDGED,
    GENERATED, COMPUTED, CACHED, PREEMPTED, TTFT,
) = range(16)  # fmt: skip
"""Columns. The four before TTFT are in the order of `layout.TALLIES`; TTFT and the three below begin a histogram."""
TPOT: Final = TTFT + len(TTFT_EDGES_S) + 1
PROMPT: Final = TPOT + len(TPOT_EDGES_S) + 1
OUTPUT: Final = PROMPT + len(LENGTH_EDGES) + 1
WIDTH: Final = OUTPUT + len(LENGTH_EDGES) + 1

LARGEST_SIZE: Final = 8


@njit(cache=True)
def count(rows, requests, arrived, firsts, done, good, size_of_slot, tallies, known):
    """`arrived`, `firsts`, `done`: requests since the last time; `good`: whether each of `done` met its targets.
    `known`: the engines' tallies as last read; one that has fallen belongs to a new pod and counts from 0."""
    for q in arrived:
        rows[0, ARRIVALS] += 1
        rows[0, ARRIVED_PROMPT] += requests.prompt[q]
        rows[0, PROMPT + np.searchsorted(LENGTH_EDGES, requests.prompt[q])] += 1
    for q in firsts:
        ttft_s = FRONT_S + requests.first_token_s[q] - requests.arrival_s[q]
        for row in (0, size_of_slot[requests.replica[q]]):
            rows[row, FIRSTS] += 1
            rows[row, TTFT_SUM] += ttft_s
            rows[row, TTFT + np.searchsorted(TTFT_EDGES_S, ttft_s)] += 1
    for i in range(len(done)):
        q = done[i]
        output = requests.output[q]
        decoding_s = requests.done_s[q] - requests.first_token_s[q]
        for row in (0, size_of_slot[requests.replica[q]]):
            rows[row, FINISHED] += 1
            rows[row, OUTPUT_SUM] += output
            rows[row, OUTPUT + np.searchsorted(LENGTH_EDGES, output)] += 1
            rows[row, REQUEST_SUM] += FRONT_S + requests.done_s[q] - requests.arrival_s[q]
            rows[row, GOOD] += good[i]
            rows[row, JUDGED] += 1
            if output > 1:
                tpot_s = decoding_s / (output - 1)
                rows[row, TPOTS] += 1
                rows[row, TPOT_SUM] += tpot_s
                rows[row, TPOT + np.searchsorted(TPOT_EDGES_S, tpot_s)] += 1
    for slot in range(len(tallies)):
        fresh = False
        for k in range(tallies.shape[1]):
            fresh |= tallies[slot, k] < known[slot, k]
        for k in range(tallies.shape[1]):
            more = tallies[slot, k] - (0.0 if fresh else known[slot, k])
            rows[0, GENERATED + k] += more
            rows[size_of_slot[slot], GENERATED + k] += more
            known[slot, k] = tallies[slot, k]
