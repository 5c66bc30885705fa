"""Follow targets.json: a change of the service's targets reaches the running pod, which never restarts for
it.

The kubelet replaces the mounted file a minute or so after the ConfigMap. Polled, because the replacement is
a swap of symbolic links that file watches on the path itself do not see. A file that cannot be read leaves
the targets as they are: wrong targets would be worse than old ones.
"""

from __future__ import annotations

import asyncio
import os

import structlog

from paceline_core.latency import Targets, TargetsError
from paceline_runtime.vllm_plugin.serving import Serving

log = structlog.get_logger(__name__)

EVERY_S = 2.0


async def follow(serving: Serving, *, every_s: float = EVERY_S) -> None:
    """Never returns. The contents at the start are those that `serving` was made with."""
    path = serving.settings.targets_path
    seen = _stamp(path)
    while True:
        await asyncio.sleep(every_s)
        stamp = _stamp(path)
        if stamp == seen:
            continue
        seen = stamp
        try:
            targets = Targets.from_json(path.read_bytes())
        except (OSError, TargetsError) as error:
            log.error("targets_unreadable", path=str(path), error=str(error))
            continue
        if targets != serving.ledger.targets:
            serving.ledger.retarget(targets)
            log.info("targets_changed", targets=targets.to_json())


def _stamp(path: os.PathLike[str]) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
