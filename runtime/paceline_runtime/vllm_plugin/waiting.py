"""Processes of a CPU engine that wait for each other sleep.

vLLM's processes hand each other steps through shared memory, and one that waits looks again and again for
a second before it sleeps. Where the processes compute on the same cores as they wait, that takes the
machine: two engines with one request a second between them kept two cores busy, and the gate, the kubelet
and the API server beside them waited. To be woken costs some tens of microseconds a step. On a GPU node the
cores are there to spin, so nothing changes there.

Loaded by vLLM in each of its processes, before the queues are made (`vllm.general_plugins`).
"""

from __future__ import annotations

from typing import Any, Final

from vllm.distributed.device_communicators import shm_broadcast
from vllm.platforms import current_platform

LOOK_AGAIN_MS: Final = 50
"""A message that wakes may be lost while the sockets are still connecting: nobody sleeps longer than this."""


class SleepingCondition(shm_broadcast.SpinCondition):  # type: ignore[misc]
    """Waits for the writer's message from the first moment on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"busy_loop_s": 0}))

    def wait(self, timeout_ms: int | None = None) -> None:
        super().wait(timeout_ms=LOOK_AGAIN_MS if timeout_ms is None else min(timeout_ms, LOOK_AGAIN_MS))


def sleep_while_waiting() -> None:
    if current_platform.is_cpu():
        shm_broadcast.SpinCondition = SleepingCondition
