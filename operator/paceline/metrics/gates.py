"""Asks the gates of a service whether somebody wants an answer, now. Used by the controller where a scrape would
come too late: before a service goes to zero, and while it is there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from paceline.metrics import series
from paceline.metrics.facts import PodView
from paceline.metrics.pod_pages import PodPages
from paceline.planner import Door

CONNECTIONS = 32
TIMEOUT_S = 2.0


class Gates:
    """Belongs to one event loop."""

    def __init__(self, pages: PodPages | None = None) -> None:
        self._pages = pages or PodPages(connections=CONNECTIONS, timeout_s=TIMEOUT_S)

    async def ask(self, pods: Iterable[PodView]) -> dict[str, Door | None]:
        """Of every Ready gate among these pods, by name; None for one that did not answer, or not with all that
        a gate says."""
        gates = [one for one in pods if one.component == "router" and one.ready and not one.deleting]
        pages = await asyncio.gather(*(self._pages.read(one) for one in gates))
        return {
            gate.name: _door(page) if page is not None else None
            for gate, page in zip(gates, pages, strict=True)
        }

    async def close(self) -> None:
        await self._pages.close()


def _door(page: dict[str, float]) -> Door | None:
    found = [
        page.get(name, math.nan) for name in (series.GATE_HELD, series.GATE_IN_FLIGHT, series.GATE_ARRIVALS)
    ]
    if not all(map(math.isfinite, found)):
        return None
    held, in_flight, arrivals = found
    return Door(held=held, in_flight=in_flight, arrivals=arrivals)
