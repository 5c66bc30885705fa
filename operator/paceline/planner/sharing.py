"""Who gets the GPUs that several services want: what each needs at least first, then by priority. Pure.

Called once a tick with what every service would take if it were alone (its wish); the answer is the most that each
may hold. Which of it is free now, and on which node, is not looked at here: a service that holds more than its
share gives it back first, pod by pod, and the one that is to have it waits for that.

    pool of 8 GPUs          floor   holds   wishes      share
    gold    priority 10       1       2       6           6
    silver  priority 0        1       5       5           1      gives back 4
    bronze  priority 0        1       1       2           1

Between equals, who holds keeps; what is left is dealt replica by replica to the one that has the fewest GPUs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from paceline.planner.observation import Shape, SharedLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one service holds and wishes."""

    name: str
    priority: int
    floor: int
    """GPUs that it is never asked to give back, whatever the pools hold."""

    current: Shape
    """What it was last told to have."""

    wish: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """GPUs that its members share. Members that do not scale by themselves are no claims: their GPUs are not
    among these."""

    limit: SharedLimit
    gpus: int
    members: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    gpus: int
    bound_by: SharedLimit | None
    """What kept it below the wish; None: nothing."""


def shares(claims: Iterable[Claim], pools: Sequence[Pool]) -> dict[str, Share]:
    """Of every claim, by name."""
    table = _Table(pools)
    ordered = sorted(claims, key=lambda one: (-one.priority, one.name))
    for one in ordered:
        table.give(one.name, min(one.floor, one.wish.gpus))
    for _, equals in groupby(ordered, key=lambda one: one.priority):
        rank = tuple(equals)
        table.deal(
            (one.name, min(one.current.gpus, one.wish.gpus), one.current.tensor_parallel_size) for one in rank
        )
        table.deal((one.name, one.wish.gpus, one.wish.tensor_parallel_size) for one in rank)
    return {
        one.name: Share(gpus=table.given[one.name], bound_by=table.bound_by.get(one.name)) for one in ordered
    }


class _Table:
    """The pools while they are dealt out."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self.given: dict[str, int] = {}
        self.bound_by: dict[str, SharedLimit] = {}
        """Of those that did not get all, the pool that let them down last."""

        self._pools = pools
        self._left = [pool.gpus for pool in pools]
        self._of: dict[str, list[int]] = {}
        for number, pool in enumerate(pools):
            for member in pool.members:
                self._of.setdefault(member, []).append(number)

    def give(self, name: str, gpus: int) -> None:
        self.given[name] = self.given.get(name, 0) + gpus
        for number in self._of.get(name, ()):
            self._left[number] -= gpus

    def deal(self, wanted: Iterable[tuple[str, int, int]]) -> None:
        """(name, up to so many GPUs, GPUs of a replica). Whom a pool lets down is out: pools only shrink."""
        turns = [(self.given[name], name, most, unit) for name, most, unit in wanted]
        heapq.heapify(turns)
        while turns:
            given, name, most, unit = heapq.heappop(turns)
            step = min(unit, most - given)
            if step <= 0:
                self.bound_by.pop(name, None)
            elif (limit := self._tightest(name, step)) is not None:
                self.bound_by[name] = limit
            else:
                self.give(name, step)
                heapq.heappush(turns, (given + step, name, most, unit))

    def _tightest(self, name: str, step: int) -> SharedLimit | None:
        """The pool that has the least left, if that is less than the step."""
        tight = min(self._of.get(name, ()), key=lambda number: self._left[number], default=None)
        return self._pools[tight].limit if tight is not None and self._left[tight] < step else None
