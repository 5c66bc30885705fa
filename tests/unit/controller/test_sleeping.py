"""The decision loop at the edge of zero: who is asked before a service sleeps, and what wakes it."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from paceline.controller.decision_record import observation_of
from paceline.controller.doorbell import Doorbell
from paceline.fleet.decisions_config import DECISIONS
from paceline.metrics import Availability, ServiceMetrics
from paceline.planner import MISSING, Door, Figure, Traffic
from tests.unit.controller.test_decision_loop import KEY, Stage, metrics

PERIOD_S, IDLE_S = 15.0, 60
HELD = {"router-0": Door(held=2, in_flight=2, arrivals=7)}


def seen(*, rate: float = 0.0, held: float = 0.0, age_s: float = 5.0) -> ServiceMetrics:
    waiting = Figure(value=held, age_s=age_s)
    return metrics(
        traffic=Traffic(
            requests_per_s=Figure(value=rate, age_s=age_s),
            held_requests=waiting,
            in_flight_requests=waiting,
            window_s=60,
        )
    )


AWAY = metrics(
    availability=Availability(available=False, reason="PrometheusUnreachable", message="No answer from it."),
    source="None",
    traffic=Traffic(requests_per_s=MISSING, window_s=60),
)


class Night(Stage):
    """A service that may go to zero, and that nobody asks for anything."""

    def __init__(self, mode: str = "Auto", **scaling: Any) -> None:
        zero = {"replicaBounds": {"min": 0, "max": 6}, "scaleToZero": {"idleSeconds": IDLE_S}}
        super().__init__(mode, **{**zero, **scaling})
        self.planner.replicas = 2
        self.source.answer = seen()

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / PERIOD_S)):
            await self.tick()
            self.cluster.reconcile()
            self.cluster.now_s += PERIOD_S

    async def fall_asleep(self) -> None:
        await self.pass_time(IDLE_S + PERIOD_S)
        self.cluster.settle()
        assert self.live() == []

    async def ring(self) -> None:
        """One round of the doorbell."""
        self.cache.service = lambda _: self.cluster.service  # type: ignore[method-assign, assignment]
        bell = Doorbell(cache=self.cache, gates=cast(Any, self.gates), listener=self.loop)
        await bell.round()
        self.cluster.advice = self.advice.of(KEY)

    def live(self) -> list[str]:
        return self.cluster.live()

    def woken(self) -> bool:
        self.cluster.settle()
        return len(self.live()) == 1


async def test_an_idle_service_goes_to_zero_and_the_planner_is_not_asked_any_more() -> None:
    night = Night()
    await night.pass_time(IDLE_S)
    night.cluster.settle()
    assert len(night.live()) == 2
    assert night.gates.asked == 0
    await night.fall_asleep()
    asked = len(night.planner.asked)
    await night.pass_time(60)
    assert len(night.planner.asked) == asked
    assert night.live() == []
    (last, *_) = night.cluster.status.decisions
    assert (last.reason, last.shape.replicas) == ("Idle", 0)


async def test_no_service_goes_to_zero_while_a_gate_does_not_answer() -> None:
    night = Night()
    night.gates.doors = {"router-0": None}
    await night.pass_time(IDLE_S * 3)
    night.cluster.settle()
    assert len(night.live()) == 2
    assert "does not go to zero: 1 of 1 Ready router pods" in night.cluster.condition("ScalingActive")[2]
    assert night.planner.asked[-1][0].now_s > night.cluster.now_s - 200
    night.gates.doors = {"router-0": Door(held=0, in_flight=0, arrivals=5)}
    await night.fall_asleep()


async def test_nor_while_metrics_are_away() -> None:
    night = Night()
    await night.pass_time(IDLE_S - PERIOD_S)
    night.source.answer = AWAY
    await night.pass_time(IDLE_S * 20)
    night.cluster.settle()
    assert len(night.live()) == 2
    assert night.gates.asked == 0


async def test_a_held_request_wakes_it_between_two_looks() -> None:
    night = Night()
    await night.fall_asleep()
    await night.ring()
    assert not night.woken()
    night.gates.doors = dict(HELD)
    before = len(night.wanted)
    await night.ring()
    assert night.wanted[before:] == [(KEY, True)]
    assert night.woken()
    (last, *_) = night.cluster.status.decisions
    assert (last.reason, last.before and last.before.replicas, last.shape.replicas) == ("RequestHeld", 0, 1)
    assert "2 requests are held" in last.message
    (record, *_) = json.loads(night.writer.writes[-1]["data"][DECISIONS])
    assert record["reason"] == "RequestHeld"
    assert observation_of(record).current is not None


async def test_a_request_that_came_and_left_wakes_it() -> None:
    night = Night()
    await night.fall_asleep()
    await night.ring()
    night.gates.doors = {"router-0": Door(held=0, in_flight=0, arrivals=6)}
    await night.ring()
    assert night.woken()


async def test_who_was_woken_stays_awake_for_the_idle_time() -> None:
    night = Night()
    await night.pass_time(IDLE_S + 2 * PERIOD_S)
    await night.ring()
    night.gates.doors = {"router-0": Door(held=0, in_flight=0, arrivals=6)}
    await night.ring()
    for _ in range(IDLE_S // int(PERIOD_S)):
        night.cluster.reconcile()
        shapes = night.cluster.status.shape
        assert shapes is not None
        assert shapes.desired is not None
        assert shapes.desired.replicas > 0
        await night.pass_time(PERIOD_S)


async def test_figures_of_before_do_not_put_it_back_to_sleep() -> None:
    night = Night()
    await night.fall_asleep()
    night.gates.doors = dict(HELD)
    await night.ring()
    night.cluster.reconcile()
    for scraped_s in range(5, 5 + IDLE_S * 2, int(PERIOD_S)):
        # Prometheus has not scraped since, and says that all is quiet.
        night.source.answer = seen(age_s=scraped_s)
        await night.pass_time(PERIOD_S)
    night.cluster.settle()
    assert night.live() != []


@pytest.mark.parametrize("answer", [pytest.param(AWAY, id="away"), pytest.param(seen(), id="there")])
async def test_a_new_process_wakes_it_without_having_seen_it_awake(answer: ServiceMetrics) -> None:
    night = Night()
    await night.fall_asleep()
    night.start()
    night.advice.forget(KEY)
    night.cluster.advice = None
    night.source.answer = answer
    night.gates.doors = dict(HELD)
    await night.ring()
    assert night.woken()


async def test_prometheus_alone_wakes_it_too() -> None:
    night = Night()
    await night.fall_asleep()
    night.source.answer = seen(held=1)
    await night.tick()
    assert night.woken()


async def test_where_nobody_can_be_asked_it_stays_and_says_so() -> None:
    night = Night()
    await night.fall_asleep()
    night.source.answer, night.gates.doors = AWAY, {"router-0": None}
    await night.ring()
    await night.pass_time(60)
    night.cluster.settle()
    assert night.live() == []
    status, reason, message = night.cluster.condition("ScalingActive")
    assert (status, reason) == ("False", "Hindered")
    assert "stays at zero: 1 of 1 Ready router pods (router-0) do not answer" in message


async def test_advisory_says_that_it_would_go_to_zero_and_stays() -> None:
    night = Night("Advisory")
    await night.pass_time(IDLE_S * 3)
    night.cluster.settle()
    assert len(night.live()) == 2
    (last, *_) = night.cluster.status.decisions
    assert (last.mode, last.reason, last.shape.replicas) == ("Advisory", "Idle", 0)


async def test_without_step_times_it_goes_to_zero_and_wakes_all_the_same() -> None:
    night = Night()
    night.planner.of = lambda *_: None  # type: ignore[method-assign, assignment]
    await night.fall_asleep()
    night.gates.doors = dict(HELD)
    await night.ring()
    assert night.woken()


async def test_it_wakes_with_a_size_that_the_spec_allows() -> None:
    night = Night()
    await night.fall_asleep()
    night.cluster.edit({"scaling": {"tensorParallelSize": 3, "allowedTensorParallelSizes": [3]}})
    night.gates.doors = dict(HELD)
    await night.ring()
    assert night.woken()
    (name,) = night.cluster.variants()
    assert name.startswith("tp3-")


async def test_who_is_awake_is_not_asked_every_second() -> None:
    night = Night()
    await night.pass_time(30)
    await night.ring()
    assert night.gates.asked == 0
