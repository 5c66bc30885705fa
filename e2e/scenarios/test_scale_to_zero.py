"""To zero after an idle time, and back for whoever asks: nobody who found a place to wait in is refused.

Engines are emulated; API server, kubelet, scheduler, router, gate and Prometheus are real. An engine starts in 5 s
(emulated), and the idle time is 20 s instead of half an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.kubectl import wait_for
from e2e.load import Record
from e2e.scenarios.load import burst
from e2e.scenarios.rival import gives_them_back, holds_gpus
from e2e.scenarios.tenant import Operator, Tenant

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("closed_loop")]

Manifest = dict[str, Any]

IDLE_S, START_S = 20, 5
PLACES = 10
"""In each of two router pods."""

GPUS = 8
"""Of the node."""


def sleeper(emulated: Callable[..., Manifest], *, places: int = 32, hold_s: int = 60) -> Manifest:
    made = emulated(replicas=1, router={"hold": {"maxRequests": places, "maxSeconds": hold_s}})
    made["spec"]["scaling"] = {
        "mode": "Auto",
        "replicas": 1,
        "tensorParallelSize": 1,
        "allowedTensorParallelSizes": [1],
        "replicaBounds": {"min": 0, "max": 3},
        "scaleToZero": {"idleSeconds": IDLE_S},
        "scaleDown": {"stabilizationSeconds": 20},
    }
    made["spec"]["slo"] = {"preset": "Standard"}
    made["spec"]["runtime"]["maxSequences"] = 16
    made["spec"]["runtime"]["emulation"] = {"stepMilliseconds": 20, "startSeconds": START_S}
    return made


def ready(tenant: Tenant, reason: str | None = None) -> None:
    def is_so() -> bool:
        found = tenant.condition("Ready") or {}
        return found.get("status") == "True" and reason in (None, found.get("reason"))

    wait_for(f"Ready {reason or ''}", is_so, timeout_s=180)


def asleep(tenant: Tenant) -> float:
    """Seconds until nothing of the engines is left."""
    since_s = time.monotonic()
    ready(tenant, "ScaledToZero")
    wait_for("no engine pod", lambda: not tenant.engines(), timeout_s=180)
    return time.monotonic() - since_s


def failures(records: list[Record]) -> list[str]:
    return [one.failure for one in records if one.failure is not None]


def waits_s(records: list[Record]) -> list[float]:
    return [one.first_token_s for one in records if one.first_token_s is not None]


def test_whoever_asks_at_zero_is_held_and_answered(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    tenant.apply(sleeper(emulated))
    ready(tenant)
    idle_s = asleep(tenant)
    summary = tenant.observe()["status"]["summary"]
    assert (summary["replicas"], summary["reason"]) == ("0/0", "ScaledToZero")
    alone = burst(tenant.base_url(), model=tenant.name, requests=1)
    assert failures(alone) == []
    again_s = asleep(tenant)
    crowd = burst(tenant.base_url(), model=tenant.name, requests=40, stream=None)
    reasons = [one["reason"] for one in tenant.observe()["status"]["decisions"]]
    record_scenario(
        requests=1 + len(crowd),
        failed=len(failures(crowd)),
        seconds_to_zero=round(idle_s, 1),
        seconds_to_zero_again=round(again_s, 1),
        first_token_at_zero_s=round(waits_s(alone)[0], 1),
        longest_wait_s=round(max(waits_s(crowd)), 1),
    )
    assert failures(crowd) == []
    assert START_S <= waits_s(alone)[0] < 45
    assert {"Idle", "RequestHeld"} <= set(reasons)


def test_a_burst_over_the_places_to_wait_is_told_to_come_back_and_the_rest_is_answered(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    tenant.apply(sleeper(emulated, places=PLACES))
    ready(tenant)
    asleep(tenant)
    records = burst(tenant.base_url(), model=tenant.name, requests=60)
    refused = [one for one in records if one.status == 429]
    others = [one for one in records if one.status != 429]
    record_scenario(requests=len(records), refused=len(refused), failed=len(failures(others)))
    assert failures(others) == []
    # A connection goes to either router pod by chance: one may be full while the other is not.
    assert PLACES <= len(others) <= 2 * PLACES
    assert {one.retry_after for one in refused} == {"6"}
    assert all(one.ended_s is not None and one.ended_s < 5 for one in refused)


def test_an_operator_that_was_killed_at_zero_wakes_the_service(
    tenant: Tenant,
    operator: Operator,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
) -> None:
    tenant.apply(sleeper(emulated))
    ready(tenant)
    asleep(tenant)
    operator.kill()
    records = burst(tenant.base_url(), model=tenant.name, requests=10)
    record_scenario(
        requests=len(records), failed=len(failures(records)), longest_wait_s=round(max(waits_s(records)), 1)
    )
    assert failures(records) == []


def test_a_start_that_finds_no_gpu_ends_the_wait_with_a_word_and_the_next_one_is_answered(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    tenant.apply(sleeper(emulated, hold_s=40))
    ready(tenant)
    holds_gpus(tenant, gpus=GPUS - 1)
    asleep(tenant)
    tenant.change({"scaling": {"tensorParallelSize": 3, "allowedTensorParallelSizes": [3]}})
    whole = burst(tenant.base_url(), model=tenant.name, requests=3, stream=False)
    streamed = burst(tenant.base_url(), model=tenant.name, requests=3)
    gives_them_back(tenant)
    later = burst(tenant.base_url(), model=tenant.name, requests=3)
    record_scenario(
        requests=len(whole) + len(streamed) + len(later),
        held_in_vain=len(failures(whole)) + len(failures(streamed)),
        failed=len(failures(later)),
    )
    assert {(one.status, one.retry_after) for one in whole} == {(503, "4")}
    # After the comments of its 15th second a stream can only end with an error event.
    assert {one.status for one in streamed} == {200}
    assert all("no_engine" in failure for failure in failures(streamed))
    assert len(failures(streamed)) == 3
    assert failures(later) == []
