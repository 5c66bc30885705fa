"""A stalled engine and a hung one are told from a busy, a slow and an idle one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

from hypothesis import given
from hypothesis import strategies as st

from paceline_runtime.vllm_plugin.heartbeat import HUNG_AFTER_S, STALLED_AFTER_S, Heartbeat
from tests.unit.runtime.pod import Pod, pod, until


class Clock:
    """Real time, and what the test adds to it."""

    def __init__(self) -> None:
        self.added_s = 0.0

    def __call__(self) -> float:
        return monotonic() + self.added_s


async def test_an_engine_that_makes_no_step_for_a_minute_is_dead(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock, emulation_step_s=3600) as one:
        stuck = asyncio.create_task(one.answer())
        await until(lambda: one.server.engine.unfinished() == 1)
        assert (await one.get("/live"))[0] == 200
        clock.added_s = HUNG_AFTER_S + 1
        assert (await one.get("/live"))[0] == 503
        assert "paceline_engine_step_age_seconds 6" in (await one.get("/metrics"))[1]
        stuck.cancel()


async def test_more_arrivals_do_not_make_a_hung_engine_look_alive(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock, emulation_step_s=3600) as one:
        stuck = []
        for waited_s in (0.0, 30.0, 61.0):
            clock.added_s = waited_s
            stuck.append(asyncio.create_task(one.answer()))
            await until(lambda: one.server.engine.unfinished() == len(stuck))
        assert (await one.get("/live"))[0] == 503
        for task in stuck:
            task.cancel()


async def test_a_busy_engine_is_alive(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock, emulation_step_s=0.01) as one:
        busy = asyncio.create_task(one.answer(max_tokens=500, ignore_eos=True))
        await until(lambda: one.server.engine.unfinished() == 1)
        clock.added_s = HUNG_AFTER_S + 1
        await asyncio.sleep(0.1)
        assert (await one.get("/live"))[0] == 200
        busy.cancel()


async def test_an_idle_engine_is_alive_however_long(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock) as one:
        await one.answer(max_tokens=2)
        clock.added_s = 86_400
        assert (await one.get("/live"))[0] == 200
        assert "paceline_engine_step_age_seconds 0.0" in (await one.get("/metrics"))[1]


async def test_the_first_request_after_a_long_rest_has_its_minute(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock, emulation_step_s=3600) as one:
        clock.added_s = 86_400
        slow = asyncio.create_task(one.answer())
        await until(lambda: one.server.engine.unfinished() == 1)
        assert (await one.get("/live"))[0] == 200
        slow.cancel()


async def test_a_stalled_engine_is_not_ready_until_it_steps_again(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock) as one, one.ask(max_tokens=50, ignore_eos=True) as response:
        await response.content.readline()
        assert await one.emulate(fault="Hang") == 200
        await asyncio.sleep(0.05)
        assert (await one.get("/ready"))[0] == 200
        clock.added_s += STALLED_AFTER_S + 1
        assert (await one.get("/ready"))[0] == 503
        assert (await one.get("/live"))[0] == 200
        assert await one.emulate(fault="None") == 200
        assert (await response.text()).endswith("data: [DONE]\n\n")
        assert (await one.get("/ready"))[0] == 200


async def stall_until_its_client_leaves(one: Pod, clock: Clock) -> None:
    async with one.ask(max_tokens=50, ignore_eos=True) as response:
        await response.content.readline()
        assert await one.emulate(fault="Hang") == 200
        await asyncio.sleep(0.05)
        clock.added_s += STALLED_AFTER_S + 1
        assert (await one.get("/ready"))[0] == 503
    await until(lambda: one.server.engine.unfinished() == 0)


async def test_a_stall_outlives_the_clients_that_give_up_on_it(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock) as one:
        await stall_until_its_client_leaves(one, clock)
        assert (await one.get("/ready"))[0] == 503
        clock.added_s += HUNG_AFTER_S
        assert (await one.get("/live"))[0] == 503


async def test_an_engine_without_work_that_answers_again_is_ready_again(tmp_path: Path) -> None:
    clock = Clock()
    async with pod(tmp_path, clock=clock) as one:
        await stall_until_its_client_leaves(one, clock)
        assert await one.emulate(fault="None") == 200
        assert (await one.get("/ready"))[0] == 200
        assert (await one.get("/live"))[0] == 200


def test_a_slow_engine_is_not_stalled_by_its_own_pace() -> None:
    now_s = 0.0
    heartbeat = Heartbeat(clock=lambda: now_s, unfinished=lambda: 1)
    for step_s in (0.02, 2.0, 0.02, 0.02):
        now_s += step_s
        heartbeat.beat()
    now_s += 3 * STALLED_AFTER_S
    assert not heartbeat.is_stalled()
    heartbeat.beat()
    now_s += 5 * STALLED_AFTER_S
    assert not heartbeat.is_stalled()
    for _ in range(1000):
        now_s += 0.02
        heartbeat.beat()
    now_s += STALLED_AFTER_S + 1
    assert heartbeat.is_stalled()


def test_a_hung_engine_is_stalled_however_slow_it_was() -> None:
    now_s = 0.0
    heartbeat = Heartbeat(clock=lambda: now_s, unfinished=lambda: 1)
    now_s += 50
    heartbeat.beat()
    now_s += HUNG_AFTER_S + 1
    assert heartbeat.is_stalled()
    assert heartbeat.hung


@given(st.lists(st.tuples(st.sampled_from(["arrive", "finish", "step"]), st.floats(0, 100)), max_size=40))
def test_hung_means_a_minute_of_work_without_a_step(events: list[tuple[str, float]]) -> None:
    now_s, unfinished, owed_since_s = 0.0, 0, 0.0
    heartbeat = Heartbeat(clock=lambda: now_s, unfinished=lambda: unfinished)
    for what, later_s in events:
        now_s += later_s
        if what == "arrive":
            heartbeat.expect()
            owed_since_s = now_s if unfinished == 0 else owed_since_s
            unfinished += 1
        elif what == "finish" and unfinished:
            unfinished -= 1
        elif what == "step" and unfinished:
            heartbeat.beat()
            owed_since_s = now_s
        assert heartbeat.hung == (unfinished > 0 and now_s - owed_since_s > HUNG_AFTER_S)
