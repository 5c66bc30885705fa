"""The start of an emulated engine: as long as it was told to take, stage by stage, as a real one reports it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from paceline_core import Canary
from paceline_runtime.emulator.current import Current
from paceline_runtime.launch.emulation import Emulation
from paceline_runtime.launch.failure import Stage
from paceline_runtime.vllm_plugin.serving import Serving

log = structlog.get_logger(__name__)


async def start(
    serving: Serving,
    emulation: Emulation,
    *,
    current: Current,
    die: Callable[[Stage], None],
    canary: Callable[[], Canary | None],
    opened: Callable[[], None],
) -> None:
    began_s = stage_began_s = time.monotonic()
    stages: dict[str, float] = {}
    for stage, takes_s in emulation.stages_s.items():
        await asyncio.sleep(takes_s)
        if stage == "weights" and current.conditions.fault == "DieLoading":
            die("weights")
        now_s = time.monotonic()
        stages[stage], stage_began_s = now_s - stage_began_s, now_s
        log.info("stage", stage=stage, seconds=round(stages[stage], 2))
    measured = canary()
    stages["ready"] = time.monotonic() - began_s
    opened()
    serving.open(stages, canary=measured)
    log.info("ready", ready_s=round(stages["ready"], 2))
