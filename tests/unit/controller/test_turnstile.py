"""The turnstile: no more than its width at a time, the urgent before everything else, and nobody for ever."""

import asyncio

import pytest

from paceline.controller import turnstile as module
from paceline.controller.turnstile import URGENT, Turnstile

PATIENT = URGENT + 10


class Visitors:
    """Callers that stay inside until they are told to leave; who is inside, in the order of entering."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile
        self.entered: list[str] = []
        self.inside: set[str] = set()
        self._leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str, priority: int) -> None:
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._visit(name, priority))
            await asyncio.sleep(0)

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
            await asyncio.gather(self.tasks[name])
        for _ in range(3):
            await asyncio.sleep(0)

    async def _visit(self, name: str, priority: int) -> None:
        async with self._turnstile.turn(priority):
            self.entered.append(name)
            self.inside.add(name)
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)


async def test_no_more_than_its_widths_are_inside() -> None:
    visitors = Visitors(Turnstile(width=3, narrow=2))
    await visitors.come("a", "b", "c", "d", priority=PATIENT)
    assert visitors.inside == {"a", "b"}
    await visitors.come("e", "f", "g", "h", priority=URGENT)
    assert visitors.inside == {"a", "b", "e", "f", "g"}


async def test_no_patient_one_enters_while_an_urgent_one_is_inside_or_waits() -> None:
    visitors = Visitors(Turnstile(width=1, narrow=1))
    await visitors.come("urgent", priority=URGENT)
    await visitors.come("patient", priority=PATIENT)
    await visitors.come("urgent too", priority=URGENT)
    await visitors.leave("urgent")
    assert visitors.inside == {"urgent too"}
    await visitors.leave("urgent too")
    assert visitors.inside == {"patient"}


async def test_among_the_waiting_the_smaller_number_goes_first() -> None:
    visitors = Visitors(Turnstile(width=1, narrow=1))
    await visitors.come("first", priority=PATIENT)
    await visitors.come("status", priority=PATIENT + 10)
    await visitors.come("router", priority=PATIENT)
    await visitors.leave("first", "router", "status")
    assert visitors.entered == ["first", "router", "status"]


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    visitors = Visitors(Turnstile(width=2, narrow=1))
    await visitors.come("urgent", priority=URGENT)
    await visitors.come("patient", priority=PATIENT)
    assert visitors.inside == {"urgent"}
    await asyncio.sleep(0.05)
    assert visitors.inside == {"urgent", "patient"}


@pytest.mark.parametrize("priority", [URGENT, PATIENT])
async def test_a_cancelled_visitor_gives_its_place_on(priority: int) -> None:
    visitors = Visitors(Turnstile(width=1, narrow=1))
    await visitors.come("inside", "waiting", "last", priority=priority)
    visitors.tasks["waiting"].cancel()
    visitors.tasks["inside"].cancel()
    await asyncio.gather(*(visitors.tasks[name] for name in ("waiting", "inside")), return_exceptions=True)
    await asyncio.sleep(0)
    assert "last" in visitors.inside


async def test_one_cancelled_in_the_moment_of_entering_gives_its_place_on() -> None:
    turnstile = Turnstile(width=1, narrow=1)
    visitors = Visitors(turnstile)
    await visitors.come("inside", "waiting", "last", priority=URGENT)
    visitors._leave["inside"].set()
    # One step of the loop, in which the visitor leaves: the next one is let in, and not awake yet.
    await asyncio.sleep(0)
    assert not visitors.inside
    visitors.tasks["waiting"].cancel()
    await asyncio.gather(visitors.tasks["waiting"], return_exceptions=True)
    await asyncio.sleep(0)
    assert visitors.inside == {"last"}
