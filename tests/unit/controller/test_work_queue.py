"""The queue: each key once, one worker per key, urgent first, errors with growing pauses."""

import asyncio
import itertools

import pytest

from paceline.controller import work_queue as module
from paceline.controller.work_queue import BACKOFF_FIRST_S, BACKOFF_MAX_S, ServiceKey, WorkQueue

A, B, C = ServiceKey("ns", "a"), ServiceKey("ns", "b"), ServiceKey("ns", "c")


async def _take(queue: WorkQueue) -> ServiceKey:
    return (await asyncio.wait_for(queue.take(), 1)).key


async def _is_empty(queue: WorkQueue) -> bool:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)
    return True


async def test_any_number_of_reasons_cost_one_look() -> None:
    queue = WorkQueue()
    for _ in range(5):
        queue.add(A)
    assert len(queue) == 1
    assert await _take(queue) == A
    queue.done(A)
    assert await _is_empty(queue)


async def test_urgent_keys_go_first_and_a_waiting_key_can_become_urgent() -> None:
    queue = WorkQueue()
    queue.add(A)
    queue.add(B)
    queue.add(C, urgent=True)
    queue.add(B, urgent=True)
    assert [await _take(queue) for _ in range(3)] == [C, B, A]
    assert await _is_empty(queue)


async def test_a_service_is_looked_at_again_only_after_its_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALM_S", 0.1)
    monkeypatch.setattr(module, "URGENT_CALM_S", 0.0)
    queue = WorkQueue()
    queue.add(A)
    started_s = asyncio.get_running_loop().time()
    await _take(queue)
    queue.done(A)
    for _ in range(10):
        queue.add(A)
    await _take(queue)
    assert asyncio.get_running_loop().time() - started_s >= 0.1
    queue.done(A)
    queue.add(A, urgent=True)
    await _take(queue)
    assert asyncio.get_running_loop().time() - started_s < 0.2


async def test_a_key_is_never_worked_on_twice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALM_S", 0.0)
    monkeypatch.setattr(module, "URGENT_CALM_S", 0.0)
    queue = WorkQueue()
    queue.add(A)
    assert await _take(queue) == A
    queue.add(A)
    queue.add(A, urgent=True)
    assert await _is_empty(queue)
    queue.done(A)
    assert await _take(queue) == A
    queue.done(A)
    assert await _is_empty(queue)


async def test_a_waiter_is_woken_by_a_later_add() -> None:
    queue = WorkQueue()
    waiter = asyncio.create_task(queue.take())
    await asyncio.sleep(0.01)
    queue.add(A)
    assert (await asyncio.wait_for(waiter, 1)).key == A


async def test_the_earliest_of_several_times_counts() -> None:
    queue = WorkQueue()
    queue.add_after(A, 30)
    queue.add_after(A, 0.02)
    queue.add_after(A, 60)
    assert await _take(queue) == A
    queue.done(A)
    assert await _is_empty(queue)


async def test_pauses_after_errors_grow_to_a_limit_and_start_over_after_success() -> None:
    queue = WorkQueue()
    pauses = [queue.fail(A) for _ in range(12)]
    assert pauses[0] <= BACKOFF_FIRST_S * 1.2
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses[:6]))
    assert max(pauses) <= BACKOFF_MAX_S * 1.2
    queue.succeed(A)
    assert queue.fail(A) <= BACKOFF_FIRST_S * 1.2
    queue.forget(A)


async def test_a_forgotten_key_does_not_come_back_by_its_timer() -> None:
    queue = WorkQueue()
    queue.add_after(A, 0.01)
    queue.forget(A)
    assert await _is_empty(queue)
