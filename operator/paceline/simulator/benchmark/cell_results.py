"""All results of one cell, and the figures that a comparison is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.simulator.benchmark.suite import Cell
from paceline.simulator.policies.catalog import RIVALS
from paceline.simulator.policies.named import OURS

Floats = NDArray[np.float64]
Result = dict[str, Any]

MISSES_FOR_A_CLAIM = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResults:
    cell: Cell
    optimum: Result
    policies: dict[str, Result]

    @property
    def objective(self) -> float:
        return float(self.optimum["objective"])

    @property
    def bound(self) -> float:
        return float(self.optimum["bound_gpu_hours"])

    @property
    def claims(self) -> bool:
        """Whether there are requests enough to speak of the objective at all."""
        return float(self.optimum["requests"]) * (1 - self.objective) >= MISSES_FOR_A_CLAIM - 1e-6

    @property
    def judged(self) -> bool:
        """Whether it counts in the comparisons: another world is looked at by itself."""
        return self.claims and self.cell.kind != "variation"

    @property
    def has_frontiers(self) -> bool:
        return any(one["frontier"] for one in self.policies.values())

    def at_target(self, policy: str) -> Result | None:
        """The cheapest point that held the objective, on the frontier or as shipped."""
        body = self.policies.get(policy)
        if body is None:
            return None
        held = [
            one
            for one in [*body["frontier"], body["shipped"]]
            if (one["attainment"] or 0.0) >= self.objective
        ]
        return min(held, key=lambda one: one["gpu_hours"], default=None)

    def best_rival(self) -> tuple[str, Result] | None:
        found = [(name, point) for name in RIVALS if (point := self.at_target(name)) is not None]
        return min(found, key=lambda pair: pair[1]["gpu_hours"], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivalry:
    """Ours against the best tuned rival of a cell, at the target. Where ours does not hold it and the rival does, ours
    costs without end: such a cell must not leave the comparison."""

    cell: CellResults
    ours: Result | None
    rival: Result

    @property
    def gpu_hours(self) -> float:
        return float(self.ours["gpu_hours"]) if self.ours else float("inf")

    @property
    def over_rival(self) -> float:
        return self.gpu_hours / float(self.rival["gpu_hours"])

    @property
    def blocks(self) -> list[Floats]:
        """One row a block: GPU-hours of ours, of the rival, of the bound."""
        bounds = self.cell.optimum["bound_by_block"]
        ours = self.ours["blocks"] if self.ours else [{"gpu_hours": float("inf")}] * len(bounds)
        return [
            np.array([a["gpu_hours"], b["gpu_hours"], bound])
            for a, b, bound in zip(ours, self.rival["blocks"], bounds, strict=True)
        ]


def rivalries_of(results: Sequence[CellResults]) -> list[Rivalry]:
    return [
        Rivalry(cell=one, ours=one.at_target(OURS), rival=rival[1])
        for one in results
        if one.judged and (rival := one.best_rival()) is not None
    ]


def headroom_closed(ours: float, rival: float, bound: float) -> float:
    """(rival − ours) / (rival − bound); NaN where the rival is at the bound."""
    return float((rival - ours) / (rival - bound)) if rival > bound else float("nan")
