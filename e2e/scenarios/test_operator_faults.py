"""What the operator stands on breaks while a service under load changes: its API server, and its clock.

The operator's pod is led to the API server through a proxy that spoils calls, or has its clock set. Changes may come late,
and that is all: they end as with a healthy one, none begins twice, the Lease is kept, and no request fails. Engines are
emulated, everything else is real.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.cluster.choice import Cluster
from e2e.cluster.local import LocalCluster
from e2e.cluster.topology import API_PORT, CONTROL_PLANE_IP
from e2e.kubectl import wait_for
from e2e.scenarios.api_faults import ApiFaults, api_faults
from e2e.scenarios.clock import movable_clock
from e2e.scenarios.end_state import difference, end_state
from e2e.scenarios.load import Background
from e2e.scenarios.stage import LOAD, START_S
from e2e.scenarios.tenant import Manifest, Operator, Tenant

pytestmark = pytest.mark.slow

CHANGE_S = 240
CALM_S = 5
HOUR_S = 3600
"""Longer than the deadline of a change."""


class RoundTrip:
    """A service under load that is changed and comes back to the shape that it began with."""

    def __init__(self, tenant: Tenant, operator: Operator, made: Manifest) -> None:
        self._tenant = tenant
        self._operator = operator
        tenant.apply(made)
        tenant.settle(timeout_s=START_S)
        wait_for("what is measured is told", self._is_told, timeout_s=START_S)
        self._before = end_state(tenant)
        self._leader = self._leading()
        self._load = Background(tenant.base_url(), model=tenant.name, load=LOAD)
        self._took_s: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._load.running():
            time.sleep(CALM_S)
            yield

    def change(self, *, meanwhile: Callable[[], None] = lambda: None, **scaling: int) -> None:
        """``meanwhile`` runs right after it was asked for."""
        asked_s = self._load.now_s()
        self._tenant.change({"scaling": scaling})
        meanwhile()
        self._tenant.settle(timeout_s=CHANGE_S)
        self._took_s.append(round(self._load.now_s() - asked_s, 1))
        time.sleep(CALM_S)

    def await_starting(self) -> None:
        """The pods of another size are on their way."""

        def is_starting() -> bool:
            transition = self._tenant.observe()["status"].get("transition") or {}
            return bool(transition.get("step") == "Starting")

        wait_for("a change is under way", is_starting, timeout_s=CHANGE_S)

    def seen(self) -> dict[str, Any]:
        """Once the load has ended."""
        outcome = self._load.outcome()
        return {
            "engines": "emulated",
            "requests": outcome.requests,
            "failed": len(outcome.failures),
            "first": "; ".join(outcome.failures[:3])[:300],
            "longest_first_token_s": round(outcome.first_tokens_s[-1], 2),
            "seconds_of_each_change": " ".join(map(str, self._took_s)),
            "transitions": self._tenant.transitions(),
            "differs": difference(self._tenant, expected=self._before),
            "kept_its_lease": self._leading() == self._leader,
            "warnings": " ".join(sorted(self._warnings())),
        }

    def _is_told(self) -> bool:
        """A condition is Unknown until the operator has looked for metrics the first time."""
        condition = self._tenant.condition("MetricsAvailable")
        return condition is not None and condition["status"] != "Unknown"

    def _warnings(self) -> set[str]:
        """By their reasons: what the service's owner is told."""
        return {
            str(event["reason"])
            for event in self._tenant.kubectl.list("events")
            if event["type"] == "Warning" and event["involvedObject"]["kind"] == "InferenceService"
        }

    def _leading(self) -> str:
        return str(self._operator.lease()["holderIdentity"])


def assert_nothing_worse(seen: dict[str, Any], *, transitions: int) -> None:
    assert seen["failed"] == 0
    assert seen["transitions"] == transitions
    assert seen["differs"] == []
    assert seen["kept_its_lease"]


def test_changes_during_which_the_clock_jumps_end_as_without(
    cluster: Cluster,
    operator: Operator,
    tenant: Tenant,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
) -> None:
    """A start of six seconds leaves the time to set it."""
    made = emulated(replicas=2)
    made["spec"]["runtime"]["emulation"]["startSeconds"] = 6
    with movable_clock(operator, layout=cluster.layout) as clock:
        trip = RoundTrip(tenant, operator, made)

        def jump(ahead_s: int) -> None:
            trip.await_starting()
            clock.set_ahead(ahead_s)

        with trip.running():
            trip.change(tensorParallelSize=3, meanwhile=lambda: jump(HOUR_S))
            trip.change(tensorParallelSize=1, meanwhile=lambda: jump(0))
        seen = trip.seen()
    record_scenario(**seen)
    assert_nothing_worse(seen, transitions=2)


@pytest.fixture(scope="module")
def proxy(cluster: Cluster, operator: Operator) -> Iterator[ApiFaults]:
    """The operator reaches its API server through it, and takes it for that by its certificate."""
    if not isinstance(cluster, LocalCluster):
        pytest.skip("kind keeps its API server's key to itself: needs the local cluster")
    authority = cluster.authority
    trusting = ssl.create_default_context(cafile=str(authority.certificate("ca")))
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(authority.certificate("apiserver"), authority.key("apiserver"))
    server = f"https://{CONTROL_PLANE_IP}:{API_PORT}"
    with api_faults(server, trusting=trusting, address=CONTROL_PLANE_IP, shown=shown) as faults:
        address = {"KUBERNETES_SERVICE_HOST": CONTROL_PLANE_IP, "KUBERNETES_SERVICE_PORT": str(faults.port)}
        env = [{"name": name, "value": value} for name, value in address.items()]
        with operator.altered({"containers": [{"name": "operator", "env": env}]}):
            yield faults


@pytest.fixture
def api(proxy: ApiFaults) -> Iterator[ApiFaults]:
    """Healthy before and after each test."""
    proxy.answered.clear()
    yield proxy
    proxy.heal()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({}, id="healthy"),
        pytest.param({"status": 409}, id="conflicts"),
        pytest.param({"status": 429}, id="too-many-requests"),
        pytest.param({"status": 500}, id="internal-errors-and-lost-answers"),
        pytest.param({"delay_s": 0.7}, id="slow"),
    ],
)
def test_changes_with_an_api_server_that_is_not_well_end_as_with_a_healthy_one(
    api: ApiFaults,
    operator: Operator,
    tenant: Tenant,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
    fault: dict[str, Any],
) -> None:
    trip = RoundTrip(tenant, operator, emulated(replicas=1))
    with trip.running():
        for name, value in fault.items():
            setattr(api, name, value)
        trip.change(replicas=2)
        trip.change(tensorParallelSize=3)
        trip.change(tensorParallelSize=1, replicas=1)
    seen, calls = trip.seen(), api.answered.total()
    record_scenario(
        **seen, calls=calls, calls_refused=api.answered["refused"], calls_lost=api.answered["lost"]
    )
    assert calls > 0, "the operator goes through the proxy"
    assert_nothing_worse(seen, transitions=2)
    if "status" in fault:
        assert api.spoiled >= 5
