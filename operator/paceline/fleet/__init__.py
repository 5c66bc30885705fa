"""What the cluster should do next for one InferenceService, as a pure function.

`plan(observed, settings=...)` is the whole face: the controller reads the cluster into an `Observed`, calls
`plan`, and carries out the `Plan` it gets back. Nothing here reads a clock, opens a connection or remembers
anything: after a crash the next plan starts from what the cluster shows.
"""

from paceline.fleet.actions import Apply, Delete, Event, Plan, Reshape
from paceline.fleet.observed import (
    ChildKey,
    Conflict,
    Node,
    Observed,
    Pod,
    PodInfo,
    ServiceMeta,
    Verdict,
)
from paceline.fleet.plan import plan
from paceline.fleet.settings import Images, Settings

__all__ = [
    "Apply",
    "ChildKey",
    "Conflict",
    "Delete",
    "Event",
    "Images",
    "Node",
    "Observed",
    "Plan",
    "Pod",
    "PodInfo",
    "Reshape",
    "ServiceMeta",
    "Settings",
    "Verdict",
    "plan",
]
