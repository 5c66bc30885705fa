"""What a service under load loses when something breaks: the streams inside the process that died, and no more.

Two emulated engines, ten streams a second of 0.8 to 4.8 s; everything else is real. What counts as lost "later" was
sent more than five seconds after the fault: by then every gate and router must know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e2e.scenarios.faults import (
    Fault,
    ask_for_an_engine_that_answers_otherwise,
    ask_for_an_engine_that_dies_on_load,
    ask_for_an_engine_that_is_slow,
    ask_for_an_image_that_is_not_there,
    end_an_engine_process,
    hang_an_engine,
    kill_a_router,
    kill_an_engine,
    put_an_autoscaler_on_it,
    take_the_gpus_of_a_change,
)
from e2e.scenarios.stage import START_S, Stage
from e2e.scenarios.tenant import Tenant

pytestmark = pytest.mark.slow

Manifest = dict[str, Any]

STALL_KNOWN_S = 15.0
"""After an engine made its last step: five seconds tell a stall, readiness is three probes of two seconds, and the
gates watch."""
DEADLINE_S = 30


def two_serve(tenant: Tenant) -> bool:
    return len(tenant.serving()) == 2


def restarts(tenant: Tenant) -> int:
    """Of the engines' containers."""
    return sum(
        status["restartCount"]
        for one in tenant.engines()
        for status in one["status"].get("containerStatuses", ())
    )


def is_refused(tenant: Tenant) -> bool:
    """The change was taken back, and what served before serves."""
    return tenant.is_refused() and two_serve(tenant)


def is_told_of(tenant: Tenant) -> bool:
    return (tenant.condition("ForeignWriter") or {}).get("status") == "True"


@pytest.fixture
def stage(tenant: Tenant, emulated: Callable[..., Manifest]) -> Stage:
    made = emulated(replicas=2, transition={"readyDeadlineSeconds": DEADLINE_S, "pendingDeadlineSeconds": 20})
    return Stage(tenant, made)


def changes_hands(tenant: Tenant, *, component: str) -> Callable[[Tenant], bool]:
    """The pods are others than they are now, and all Ready."""
    pods = tenant.engines if component == "engine" else tenant.routers
    before = {one["metadata"]["uid"] for one in pods()}

    def changed(_: Tenant) -> bool:
        now = {one["metadata"]["uid"] for one in pods() if "deletionTimestamp" not in one["metadata"]}
        return now != before and len(now) == len(before) and _all_ready(tenant)

    return changed


def _all_ready(tenant: Tenant) -> bool:
    pods = [*tenant.engines(), *tenant.routers()]
    return all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"].get("conditions", ()))
        for one in pods
    )


def test_a_killed_engine_takes_its_own_streams_with_it_and_no_later_one(
    stage: Stage, record_scenario: Callable[..., None]
) -> None:
    seen = stage.play(
        kill_an_engine, until=changes_hands(stage.tenant, component="engine"), timeout_s=START_S
    )
    record_scenario(**seen)
    assert seen["failed_later"] == 0
    # At ten a second and five seconds at the most, no more can have been inside.
    assert seen["failed"] <= 50


def test_an_engine_process_that_ends_takes_its_own_streams_with_it_and_no_later_one(
    stage: Stage, record_scenario: Callable[..., None]
) -> None:
    def came_back(tenant: Tenant) -> bool:
        return restarts(tenant) == 1 and two_serve(tenant)

    seen = stage.play(end_an_engine_process, until=came_back, timeout_s=START_S)
    record_scenario(**seen)
    assert seen["failed_later"] == 0
    assert seen["failed"] <= 50


def test_an_engine_that_hangs_gets_no_more_requests_and_is_restarted(
    stage: Stage, record_scenario: Callable[..., None]
) -> None:
    """Its server answers, so nothing but the missing step tells. Readiness takes it out at once, liveness ends it after
    a minute."""

    def restarted(tenant: Tenant) -> bool:
        return restarts(tenant) >= 1 and two_serve(tenant)

    seen = stage.play(hang_an_engine, until=restarted, timeout_s=300, known_s=STALL_KNOWN_S)
    record_scenario(**seen)
    assert seen["failed_later"] == 0
    # Ten a second to two engines, for as long as the stall is not known, and what was inside.
    assert seen["failed"] <= 150


def test_a_killed_router_takes_its_own_streams_with_it_and_no_later_one(
    stage: Stage, record_scenario: Callable[..., None]
) -> None:
    seen = stage.play(kill_a_router, until=changes_hands(stage.tenant, component="router"), timeout_s=START_S)
    record_scenario(**seen)
    assert seen["failed_later"] == 0
    assert seen["failed"] <= 50


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(ask_for_an_image_that_is_not_there, id="an-image-that-is-not-there"),
        pytest.param(ask_for_an_engine_that_dies_on_load, id="an-engine-that-dies-on-load"),
        pytest.param(ask_for_an_engine_that_answers_otherwise, id="an-engine-that-answers-otherwise"),
        pytest.param(ask_for_an_engine_that_is_slow, id="an-engine-that-is-five-times-slower"),
    ],
)
def test_a_change_that_cannot_work_is_taken_back_and_loses_nothing(
    stage: Stage, fault: Fault, record_scenario: Callable[..., None]
) -> None:
    seen = stage.play(fault, until=is_refused, timeout_s=DEADLINE_S + 90)
    record_scenario(**seen)
    assert seen["failed"] == 0


def test_gpus_that_somebody_takes_in_the_middle_of_a_change_end_it_and_lose_nothing(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    """A start of 20 s leaves the time to take them."""
    made = emulated(
        replicas=2,
        transition={"readyDeadlineSeconds": 120, "pendingDeadlineSeconds": 20},
        accelerator={"resourceName": "nvidia.com/gpu"},
    )
    made["spec"]["runtime"]["emulation"]["startSeconds"] = 20
    seen = Stage(tenant, made).play(take_the_gpus_of_a_change, until=is_refused, timeout_s=180)
    refused = tenant.observe()["status"]["refused"]
    record_scenario(**seen, reason=refused["reason"])
    assert refused["reason"] == "Unschedulable"
    assert seen["failed"] == 0


def test_somebodys_autoscaler_is_named_and_loses_nothing(
    stage: Stage, record_scenario: Callable[..., None]
) -> None:
    seen = stage.play(put_an_autoscaler_on_it, until=is_told_of, timeout_s=90)
    record_scenario(**seen)
    said = (stage.tenant.condition("ForeignWriter") or {})["message"]
    assert "replicas" in said
    assert seen["failed"] == 0
