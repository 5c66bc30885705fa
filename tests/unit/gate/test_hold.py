"""The door and the bounded crowd before it."""

from __future__ import annotations

import asyncio

import pytest

from paceline_runtime.gate.hold import Hold, HoldExpired, HoldFull
from paceline_runtime.gate.metrics import Metrics


class Probe:
    """A router that has a worker, or has not."""

    def __init__(self) -> None:
        self.has_worker = False
        self.asked = 0

    async def __call__(self) -> bool:
        self.asked += 1
        return self.has_worker


def deadline(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_an_open_door_holds_nobody_and_asks_nothing() -> None:
    probe = Probe()
    hold = Hold(max_held=0, probe=probe, metrics=Metrics())
    assert not await hold.pass_through(deadline_s=deadline(0), was_held=False)
    assert probe.asked == 0


async def test_the_door_opens_for_everyone_when_a_worker_is_there() -> None:
    probe = Probe()
    hold = Hold(max_held=10, probe=probe, metrics=Metrics())
    hold.shut()
    waiting = [
        asyncio.create_task(hold.pass_through(deadline_s=deadline(5), was_held=False)) for _ in range(10)
    ]
    await asyncio.sleep(0.3)
    assert hold.held == 10
    probe.has_worker = True
    assert await asyncio.gather(*waiting) == [True] * 10
    assert hold.held == 0
    asked = probe.asked
    await asyncio.sleep(0.6)
    assert probe.asked == asked, "an open door is not probed"


async def test_a_place_is_kept_for_those_who_were_held() -> None:
    hold = Hold(max_held=1, probe=Probe(), metrics=Metrics())
    hold.shut()
    first = asyncio.create_task(hold.pass_through(deadline_s=deadline(0.5), was_held=False))
    await asyncio.sleep(0.05)
    with pytest.raises(HoldFull):
        await hold.pass_through(deadline_s=deadline(0.5), was_held=False)
    with pytest.raises(HoldExpired):
        await hold.pass_through(deadline_s=deadline(0.1), was_held=True)
    with pytest.raises(HoldExpired):
        await first
    assert hold.held == 0
    await hold.close()


async def test_a_deadline_that_has_passed_does_not_let_through() -> None:
    hold = Hold(max_held=1, probe=Probe(), metrics=Metrics())
    hold.shut()
    with pytest.raises(HoldExpired):
        await hold.pass_through(deadline_s=deadline(-1), was_held=True)
    await hold.close()


async def test_shutting_an_open_door_again_probes_again() -> None:
    probe = Probe()
    probe.has_worker = True
    hold = Hold(max_held=1, probe=probe, metrics=Metrics())
    for times in (1, 2):
        hold.shut()
        hold.shut()
        assert await hold.pass_through(deadline_s=deadline(2), was_held=False)
        assert probe.asked == times
