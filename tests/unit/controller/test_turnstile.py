"""The turnstile: no more than its width at a time, the urgent first, and nobody for ever."""

import asyncio

import pytest

from paceline.controller import turnstile as module
from paceline.controller.turnstile import Turnstile


async def test_no_more_than_its_width_are_inside() -> None:
    turnstile = Turnstile(width=3)
    inside = peak = 0

    async def visit() -> None:
        nonlocal inside, peak
        async with turnstile.turn(0):
            inside += 1
            peak = max(peak, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(visit() for _ in range(20)))
    assert peak == 3


async def _order(turnstile: Turnstile, visits: list[tuple[str, int]]) -> list[str]:
    order: list[str] = []
    opened = asyncio.Event()

    async def hold() -> None:
        async with turnstile.turn(0):
            await opened.wait()

    async def visit(name: str, priority: int) -> None:
        async with turnstile.turn(priority):
            order.append(name)

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    tasks = []
    for name, priority in visits:
        tasks.append(asyncio.create_task(visit(name, priority)))
        await asyncio.sleep(0)
    opened.set()
    await asyncio.gather(holder, *tasks)
    return order


async def test_urgent_callers_pass_those_that_waited_before_them() -> None:
    order = await _order(
        Turnstile(width=1), [("status", 3), ("router", 1), ("deployment", 0), ("account", 0)]
    )
    assert order == ["deployment", "account", "router", "status"]


async def test_a_low_priority_waits_no_longer_than_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    assert await _order(Turnstile(width=1), [("old", 3), ("new", 0)]) == ["old", "new"]


async def test_a_cancelled_visitor_gives_its_place_on() -> None:
    turnstile = Turnstile(width=1)
    release = asyncio.Event()

    async def hold() -> None:
        async with turnstile.turn(0):
            await release.wait()

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0)
    release.set()
    waiting.cancel()
    await asyncio.gather(holder, waiting, return_exceptions=True)
    async with asyncio.timeout(1):
        async with turnstile.turn(0):
            pass
