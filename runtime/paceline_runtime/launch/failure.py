"""Why a start fails, and how the operator learns of it.

    StartFailure            something went wrong on the way; it may be right the next time       exit 1
    Refused                 the spec asks for what cannot be; the same spec will always fail      exit 78

The kubelet copies the termination log into the pod's status, where the operator reads the verdict: a
refusal becomes a condition of the service at once, a failure after the restarts that Kubernetes makes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

EXIT_FAILED = 1
EXIT_REFUSED = 78
"""EX_CONFIG of sysexits.h: configuration error."""

_DEFAULT_LOG = "/dev/termination-log"
_MAX_LOG_BYTES = 4096
"""What the kubelet reads of the file."""

Stage = Literal["fetch", "import", "weights", "compile", "warmup", "serving"]


class StartFailure(Exception):
    """The engine did not start, or ended. `stage` is where."""

    def __init__(self, message: str, *, stage: Stage) -> None:
        super().__init__(message)
        self.stage = stage


class Refused(Exception):
    """The spec cannot be served. `field` names what to change, the message says to what."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


def report(error: StartFailure | Refused) -> int:
    """Write the verdict where the kubelet reads it; the exit code that goes with it."""
    if isinstance(error, Refused):
        verdict = {"verdict": "Refused", "field": error.field, "message": str(error)}
    else:
        verdict = {"verdict": "Failed", "stage": error.stage, "message": str(error)}
    path = Path(os.environ.get("PACELINE_TERMINATION_LOG", _DEFAULT_LOG))
    excess = len(json.dumps(verdict)) - _MAX_LOG_BYTES
    if excess > 0:
        verdict["message"] = verdict["message"][: -excess - 3] + "..."
    # Outside a container nobody reads it, and its folder may not be there.
    if path.parent.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK):
        path.write_text(json.dumps(verdict))
    return EXIT_REFUSED if isinstance(error, Refused) else EXIT_FAILED
