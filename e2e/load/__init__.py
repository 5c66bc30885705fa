"""Open-loop load on an OpenAI endpoint, every answer read to its end.

Scenarios and tests use :class:`OpenLoop`; people use `python -m e2e.load`.
"""

from e2e.load.exchange import Record
from e2e.load.openloop import Live, Load, OpenLoop
from e2e.load.replay import Replay
from e2e.load.summary import Summary
from e2e.load.target import ForeignTarget

__all__ = ["ForeignTarget", "Live", "Load", "OpenLoop", "Record", "Replay", "Summary"]
