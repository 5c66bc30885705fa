"""The bound from below: no policy that serves these slots within the budget of misses costs fewer GPU-hours.

    minimise    Σ_t Σ_m m·(slot·x[t,m] + start·u[t,m])
    such that   Σ_c z[t,c] ≤ 1                        the slot is shared out among shapes c = (m, n); the rest: nothing
                x[t,m] ≥ Σ_n n·z[t,(m,n)]             replicas that are there serve
                u[t,m] ≥ x[t,m] − x[t−1,m]            what is there now and was not, started
                Σ_t Σ_c (requests[t] − misses[t,c])·z[t,c] ≥ Σ_t requests[t] − budget
                Σ_m m·(x[t,m] + starting[t,m]) ≤ cap  starting: the u of the next `start` seconds

All variables may be fractions, so two sizes may share a slot, and half a replica may start: a real schedule can
only cost more. What the bound does not allow is more than the curves: it takes each slot as long enough for its
queue to settle, and one router over one pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix, csr_matrix

from paceline.simulator.oracle.problem import SECONDS_PER_HOUR, Floats, Ints, NoPlan, Problem

NONE_MISSED = 2e-5
"""Share of a slot's requests that counts as none. Of each size, shapes beyond the first that misses none are left
out: `x` may be larger than what serves."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bound:
    gpu_hours: float
    gpu_hours_by_slot: Floats
    """Their sum; a start counts in the slot that it was made for."""


def lower_bound(problem: Problem) -> Bound:
    """GPU-hours that no schedule undercuts. Raises NoPlan when no schedule keeps the budget at all."""
    rows = _Rows(problem)
    result = linprog(
        rows.cost,
        A_ub=rows.matrix(),
        b_ub=np.array(rows.right),
        bounds=(0, None),
        method="highs-ipm",
    )
    if result.status == 2:
        raise NoPlan(_fewest_misses(problem), problem.max_misses)
    if result.status != 0:
        raise RuntimeError(f"HiGHS: {result.message}")
    return rows.bound(result.x)


def _fewest_misses(problem: Problem) -> float:
    fits = [
        i
        for i, shape in enumerate(problem.shapes)
        if problem.max_gpus is None or shape.gpus <= problem.max_gpus
    ]
    if not fits:
        return float(problem.requests.sum())
    return float(np.minimum(problem.misses[:, fits].min(axis=1), problem.requests).sum())


class _Rows:
    """The inequalities A·v ≤ b, filled block by block. Columns: x by (t, m), u by (t, m), then the z."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.sizes = problem.tensor_parallel_sizes
        self.entries: list[tuple[Ints, Ints, Floats]] = []
        self.right: list[float] = []
        slots, sizes = problem.slots, len(self.sizes)
        self.z_slot, self.z_shape = _useful(problem)
        self.x0, self.u0, self.z0 = 0, slots * sizes, 2 * slots * sizes
        per_gpu = np.tile(np.array(self.sizes, dtype=float), slots)
        self.cost = np.concatenate(
            [per_gpu * problem.slot_s, per_gpu * problem.start_s, np.zeros(len(self.z_slot))]
        )
        self._shared_out()
        self._served_by_what_is_there()
        self._started()
        self._within_budget()
        if problem.max_gpus is not None:
            self._within_cap(problem.max_gpus)

    def matrix(self) -> csr_matrix:
        rows, columns, values = (np.concatenate(part) for part in zip(*self.entries, strict=True))
        return coo_matrix((values, (rows, columns)), shape=(len(self.right), len(self.cost))).tocsr()

    def bound(self, solution: Floats) -> Bound:
        spent = (self.cost * solution)[: self.z0].reshape(2, self.problem.slots, len(self.sizes))
        by_slot = spent.sum(axis=(0, 2)) / SECONDS_PER_HOUR
        return Bound(gpu_hours=float(by_slot.sum()), gpu_hours_by_slot=by_slot)

    def _block(self, right: Floats) -> int:
        first = len(self.right)
        self.right.extend(right.tolist())
        return first

    def _add(self, rows: Ints, columns: Ints, values: Floats) -> None:
        self.entries.append((rows, columns, values))

    def _shared_out(self) -> None:
        first = self._block(np.ones(self.problem.slots))
        n = len(self.z_slot)
        self._add(first + self.z_slot, self.z0 + np.arange(n), np.ones(n))

    def _served_by_what_is_there(self) -> None:
        slots, sizes = self.problem.slots, len(self.sizes)
        first = self._block(np.zeros(slots * sizes))
        index = {size: i for i, size in enumerate(self.sizes)}
        size_of = np.array([index[shape.tensor_parallel_size] for shape in self.problem.shapes])
        replicas = np.array([shape.replicas for shape in self.problem.shapes], dtype=float)
        rows = first + self.z_slot * sizes + size_of[self.z_shape]
        self._add(rows, self.z0 + np.arange(len(self.z_slot)), replicas[self.z_shape])
        every = np.arange(slots * sizes)
        self._add(first + every, self.x0 + every, -np.ones(len(every)))

    def _started(self) -> None:
        """The first slot's replicas were there before."""
        slots, sizes = self.problem.slots, len(self.sizes)
        later = np.arange(sizes, slots * sizes)
        first = self._block(np.zeros(len(later)))
        rows = first + later - sizes
        self._add(rows, self.x0 + later, np.ones(len(later)))
        self._add(rows, self.x0 + later - sizes, -np.ones(len(later)))
        self._add(rows, self.u0 + later, -np.ones(len(later)))

    def _within_budget(self) -> None:
        problem = self.problem
        first = self._block(np.array([problem.max_misses - float(problem.requests.sum())]))
        missed, requests = problem.misses[self.z_slot, self.z_shape], problem.requests[self.z_slot]
        saved = requests - np.where(missed <= NONE_MISSED * requests, 0.0, missed)
        n = len(self.z_slot)
        self._add(np.full(n, first), self.z0 + np.arange(n), -saved)

    def _within_cap(self, max_gpus: int) -> None:
        """A start of slot t holds its GPUs in the slots before t, as many as it takes."""
        slots, sizes = self.problem.slots, len(self.sizes)
        first = self._block(np.full(slots, float(max_gpus)))
        gpus = np.tile(np.array(self.sizes, dtype=float), slots)
        every = np.arange(slots * sizes)
        self._add(first + every // sizes, self.x0 + every, gpus)
        for before in range(1, math.ceil(self.problem.start_s / self.problem.slot_s) + 1):
            share = min(1.0, self.problem.start_s / self.problem.slot_s - (before - 1))
            late = np.arange(before * sizes, slots * sizes)
            self._add(first + late // sizes - before, self.u0 + late, share * gpus[late])


def _useful(problem: Problem) -> tuple[Ints, Ints]:
    """(slot, shape) pairs that an optimum can use: within the cap, saving something, and not more than enough."""
    order = sorted(
        range(len(problem.shapes)),
        key=lambda i: (problem.shapes[i].tensor_parallel_size, problem.shapes[i].replicas),
    )
    useful = np.zeros((problem.slots, len(problem.shapes)), dtype=bool)
    enough = np.zeros(problem.slots, dtype=bool)
    size = -1
    for i in order:
        shape = problem.shapes[i]
        if shape.tensor_parallel_size != size:
            size, enough = shape.tensor_parallel_size, np.zeros(problem.slots, dtype=bool)
        fits = problem.max_gpus is None or shape.gpus <= problem.max_gpus
        saves = problem.misses[:, i] < problem.requests
        useful[:, i] = fits & saves & ~enough
        enough |= problem.misses[:, i] <= NONE_MISSED * problem.requests
    slot, shape_index = np.nonzero(useful)
    return slot, shape_index
