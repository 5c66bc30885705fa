"""How one pod divides its GPUs: data-parallel ranks of a tensor-parallel size each, behind one port.

    8 GPUs   tp=8,dp=1   tp=4,dp=2   tp=2,dp=4   tp=1,dp=8

The operator writes an order into an annotation of the pod, the runtime reads it in a file: the text is an interface
between versions. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LAYOUT_ANNOTATION: Final = "paceline.dev/layout"
"""On an engine pod: the layout that it shall have. Absent: the one of its command line."""

_LAYOUT = re.compile(r"tp=([1-9]\d{0,3}),dp=([1-9]\d{0,3})")
_ORDER = re.compile(_LAYOUT.pattern + r",change=(\d{1,9})(?:,drain=(\d{1,6}))?")


class LayoutError(ValueError):
    """The text is no layout. The message says what to write."""


@dataclass(frozen=True, slots=True)
class Layout:
    tensor_parallel_size: int
    data_parallel_size: int = 1

    def __str__(self) -> str:
        return f"tp={self.tensor_parallel_size},dp={self.data_parallel_size}"

    @property
    def gpus(self) -> int:
        return self.tensor_parallel_size * self.data_parallel_size

    @classmethod
    def parse(cls, text: str) -> Layout:
        found = _LAYOUT.fullmatch(text.strip())
        if found is None:
            raise LayoutError(f"{text!r} is no layout: write tp=4,dp=2")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def dividing(cls, gpus: int, *, tensor_parallel_size: int) -> Layout | None:
        """All of these GPUs in ranks of that size; None where they do not come out even."""
        ranks, rest = divmod(gpus, tensor_parallel_size)
        return cls(tensor_parallel_size, ranks) if ranks and not rest else None


@dataclass(frozen=True, slots=True)
class LayoutOrder:
    """What the operator asks of a pod.

    >>> str(LayoutOrder(Layout(4, 2), change=7, drain_s=40))
    'tp=4,dp=2,change=7,drain=40'
    """

    layout: Layout
    change: int
    """Number of the change that it belongs to: a layout that failed is tried again by a later one, and not before."""
    drain_s: int | None = None
    """The pod goes back to serving where its requests have not ended after this time, because those that come
    meanwhile have nowhere to go. None: other pods serve, and it waits for as long as a request may take."""

    def __str__(self) -> str:
        text = f"{self.layout},change={self.change}"
        return text if self.drain_s is None else f"{text},drain={self.drain_s}"

    @classmethod
    def parse(cls, text: str) -> LayoutOrder:
        found = _ORDER.fullmatch(text.strip())
        if found is None:
            raise LayoutError(
                f"{text!r} is no order: write tp=4,dp=2,change=7 or tp=4,dp=2,change=7,drain=40"
            )
        tp, dp, change, drain = found.groups()
        drain_s = None if drain is None else int(drain)
        return cls(Layout(int(tp), int(dp)), change=int(change), drain_s=drain_s)
