"""Workers for the gate's tests, ended with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.integration.gate.worker import Worker

StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start_worker() -> AsyncIterator[StartWorker]:
    workers: list[Worker] = []

    async def start(*, step_s: float = 0.01, ip: str = "127.0.0.1", port: int = 0) -> Worker:
        worker = Worker(step_s=step_s, ip=ip)
        workers.append(worker)
        return await worker.start(port=port)

    yield start
    for worker in workers:
        await worker.die()
