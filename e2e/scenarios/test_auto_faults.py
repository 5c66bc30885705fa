"""What Auto does under load when what it reads or relies on breaks.

Engines are emulated; API server, kubelet, scheduler, router, gate and Prometheus are real. The loop looks every 5 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.kubectl import Kubectl, wait_for
from e2e.load import Load, Record
from e2e.scenarios.faults import slow_an_engine
from e2e.scenarios.load import Background, attains, targets
from e2e.scenarios.tenant import Tenant
from e2e.scenarios.test_auto import auto, desired, ready

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("closed_loop")]

Manifest = dict[str, Any]

TTFT_S, TPOT_S = 2.0, 0.06
OUTAGE_S = 600
KNOWN_S = 120
"""Until what Prometheus says, or no longer says, stands in the status."""


@contextmanager
def prometheus_away(kubectl: Kubectl) -> Iterator[None]:
    """Its pod is deleted, and with it all that it had stored."""
    monitoring = kubectl.in_namespace("monitoring")

    def scale(replicas: int) -> None:
        monitoring.run("scale", "deployment/prometheus", f"--replicas={replicas}")

    scale(0)
    try:
        wait_for("no Prometheus", lambda: not monitoring.list("pods"), timeout_s=60)
        yield
    finally:
        scale(1)
        monitoring.run("rollout", "status", "deployment/prometheus", "--timeout=120s", timeout_s=130)


def told(tenant: Tenant, kind: str, status: str) -> float:
    """Seconds until the condition says so."""
    since_s = time.monotonic()
    wait_for(
        f"{kind} is {status}",
        lambda: (tenant.condition(kind) or {}).get("status") == status,
        timeout_s=KNOWN_S,
    )
    return round(time.monotonic() - since_s, 1)


def test_ten_minutes_without_prometheus_hold_the_shape_and_a_load_that_rises_is_followed(
    tenant: Tenant,
    kubectl: Kubectl,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
) -> None:
    tenant.apply(auto(emulated, scaling={"replicaBounds": {"min": 1, "max": 8}}))
    ready(tenant)
    calm = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=1.5, max_tokens=(80, 80), ignore_eos=True),
    )
    busy = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=10, max_tokens=(80, 80), ignore_eos=True, seed=7),
    )
    with calm.running():
        time.sleep(60)
        with prometheus_away(kubectl):
            gone_at_s = time.monotonic()
            held = desired(tenant)
            told_s = told(tenant, "MetricsAvailable", "False")
            why = (tenant.condition("MetricsAvailable") or {})["reason"]
            while time.monotonic() < gone_at_s + OUTAGE_S / 3:
                assert desired(tenant)[0] >= held[0]
                time.sleep(5)
            with busy.running():
                rose_at_s = time.monotonic()
                wait_for("it is followed", lambda: len(tenant.serving()) >= held[0] + 2, timeout_s=180)
                followed_s = round(time.monotonic() - rose_at_s, 1)
                most = len(tenant.serving())
                while time.monotonic() < gone_at_s + OUTAGE_S:
                    most = max(most, len(tenant.serving()))
                    time.sleep(5)
                assert len(tenant.serving()) >= held[0] + 2
        back_s = told(tenant, "MetricsAvailable", "True")
    outcomes = (calm.outcome(), busy.outcome())
    failures = [line for one in outcomes for line in one.failures]
    record_scenario(
        requests=sum(one.requests for one in outcomes),
        failed=len(failures),
        first="; ".join(failures[:3])[:300],
        told_s=told_s,
        reason=why,
        replicas_before=held[0],
        most_replicas=most,
        followed_s=followed_s,
        measured_again_s=back_s,
    )
    assert why == "PrometheusUnreachable"
    assert failures == []


def test_an_engine_five_times_slower_than_its_peers_is_replaced(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    """20 ms a step are 100 ms then, and its targets allow 60. It answers everything, late: no number of replicas beside
    it helps."""
    slo = targets(ttft_s=TTFT_S, tpot_s=TPOT_S)
    tenant.apply(auto(emulated, scaling={"replicas": 3, "replicaBounds": {"min": 3, "max": 6}}, slo=slo))
    ready(tenant)
    load = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=8, max_tokens=(80, 80), ignore_eos=True),
    )
    with load.running():
        time.sleep(60)
        slow = tenant.engines()[0]["metadata"]
        slow_an_engine(tenant)
        slow_at_s = load.now_s()
        wait_for(
            "it is named",
            lambda: (tenant.observe()["status"].get("lastStraggler") or {}).get("pod") == slow["name"],
            timeout_s=300,
        )
        named_at_s = load.now_s()
        wait_for("it is gone", lambda: slow["uid"] not in _uids(tenant), timeout_s=120)
        wait_for("its place is taken", lambda: len(tenant.serving()) >= 3, timeout_s=120)
        well_at_s = load.now_s()
        time.sleep(60)
    outcome = load.outcome()
    straggler = tenant.observe()["status"]["lastStraggler"]
    record_scenario(
        requests=outcome.requests,
        failed=len(outcome.failures),
        attained_before_percent=_attained(outcome.records, 10, slow_at_s - 10),
        attained_meanwhile_percent=_attained(outcome.records, slow_at_s, named_at_s),
        attained_after_percent=_attained(outcome.records, well_at_s, well_at_s + 60),
        named_s=round(named_at_s - slow_at_s, 1),
        recovered_s=round(well_at_s - slow_at_s, 1),
        says=straggler["message"],
    )
    assert outcome.failures == []
    assert straggler["action"] == "Replaced"
    assert _attained(outcome.records, well_at_s, well_at_s + 60) >= 99


def _uids(tenant: Tenant) -> set[str]:
    return {one["metadata"]["uid"] for one in tenant.engines()}


def _attained(records: Sequence[Record], from_s: float, to_s: float) -> float:
    """Per cent of those sent between the two."""
    sent = [one for one in records if from_s <= one.scheduled_s < to_s]
    good = sum(attains(one, ttft_s=TTFT_S, tpot_s=TPOT_S) for one in sent)
    return round(100 * good / len(sent), 2)
