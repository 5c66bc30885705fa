"""What both sides share, pure: latency targets, checkpoint facts, model uris, the time constants of a drain.

Imported by the operator and by the runtime, which do not know each other. It does no I/O and reads no clock.
"""

from paceline_core.latency import (
    CLIENT_ERROR_STATUS,
    LatencyTarget,
    Outcome,
    Targets,
    TargetsError,
    judge_status,
)

__all__ = [
    "CLIENT_ERROR_STATUS",
    "LatencyTarget",
    "Outcome",
    "Targets",
    "TargetsError",
    "judge_status",
]
