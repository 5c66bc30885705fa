"""A full node, where neither a surge nor a change in place is to be had: old pods leave first, and no request fails.

Eight fake GPUs on the only node, emulated engines of a constant step with a start of five seconds; everything else is real.
Open-loop load runs all the while. With two pods one of them always serves; while the only one is replaced, requests wait at
the gate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.kubectl import KubectlError, wait_for
from e2e.load import Load
from e2e.scenarios import rival
from e2e.scenarios.disturbances import KillNowAndThen, change_image
from e2e.scenarios.load import Background
from e2e.scenarios.tenant import A_70B, Operator, Tenant

pytestmark = pytest.mark.slow

Manifest = dict[str, Any]

GPUS = 8
HOLD_S = 120
PENDING_S = 10
"""How long a surge is tried before the first old pod leaves."""

START_S, CHANGE_S = 120, 600
STREAM_TOKENS = (40, 240)


def filling(emulated: Callable[..., Manifest], *, replicas: int) -> Manifest:
    """Pods that take all GPUs of the node."""
    made = emulated(
        replicas=replicas,
        transition={"recreate": "Enabled", "maxHoldSeconds": HOLD_S, "pendingDeadlineSeconds": PENDING_S},
        admission={"maxRequestSeconds": 240, "maxOutputTokens": 300},
        router={"hold": {"maxRequests": 1000, "maxSeconds": HOLD_S}},
        slo={"preset": "Standard"},
    )
    spec = made["spec"]
    spec["scaling"]["tensorParallelSize"] = GPUS // replicas
    spec["runtime"]["emulation"] = {"stepMilliseconds": 20, "startSeconds": 5}
    spec["model"] = A_70B
    return made


class Fewest:
    """Engine pods that served at any look."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._stop = threading.Event()
        self.pods = len(tenant.serving())

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1):
            try:
                self.pods = min(self.pods, len(self._tenant.serving()))
            except KubectlError:
                continue


def loaded(tenant: Tenant) -> Background:
    load = Load(rate_per_s=4, max_tokens=STREAM_TOKENS, timeout_s=200)
    return Background(tenant.base_url(), model=tenant.name, load=load)


@pytest.mark.parametrize(
    ("replicas", "kills"),
    [
        pytest.param(2, False, id="two-pods"),
        pytest.param(2, True, id="two-pods-operator-killed"),
        pytest.param(1, False, id="the-only-pod"),
    ],
)
def test_a_full_node_gets_another_image_and_loses_nothing(
    tenant: Tenant,
    operator: Operator,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
    replicas: int,
    kills: bool,
) -> None:
    tenant.apply(filling(emulated, replicas=replicas))
    tenant.settle(timeout_s=START_S)
    load, fewest, killed = loaded(tenant), Fewest(tenant), 0
    with load.running(), fewest.watched():
        time.sleep(5)
        began_s = time.monotonic()
        if kills:
            with KillNowAndThen(operator, every_s=7) as killer:
                change_image(tenant, CHANGE_S)
                tenant.settle(timeout_s=CHANGE_S)
            killed = killer.kills
        else:
            change_image(tenant, CHANGE_S)
            tenant.settle(timeout_s=CHANGE_S)
        took_s = time.monotonic() - began_s
        time.sleep(10)
    outcome = load.outcome()
    transition = tenant.observe()["status"]["transition"]
    record_scenario(
        engines="emulated",
        requests=outcome.requests,
        failed=len(outcome.failures),
        transitions=tenant.transitions(),
        operator_kills=killed,
        fewest_serving=fewest.pods,
        took_s=round(took_s, 1),
        longest_first_token_s=round(outcome.first_tokens_s[-1], 1),
    )
    assert outcome.failures == []
    assert (transition["step"], transition["recreateGpus"]) == ("Done", GPUS)
    assert fewest.pods == replicas - 1
    if replicas == 1:
        assert outcome.first_tokens_s[-1] < HOLD_S


def test_a_rival_that_takes_what_an_old_pod_left_ends_the_change_and_loses_nothing(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    """It gets what the first old pod left; the second one stays and serves."""
    tenant.apply(filling(emulated, replicas=2))
    tenant.settle(timeout_s=START_S)
    rival.waits_first_in_line(tenant, gpus=GPUS // 2)
    load, fewest = loaded(tenant), Fewest(tenant)
    with load.running(), fewest.watched():
        time.sleep(5)
        began_s = time.monotonic()
        change_image(tenant, CHANGE_S)
        wait_for("rolled back", tenant.is_refused, timeout_s=CHANGE_S)
        took_s = time.monotonic() - began_s
        assert rival.runs(tenant)
        rival.gives_them_back(tenant)
        wait_for("both old pods serve", lambda: len(tenant.serving()) == 2, timeout_s=START_S)
        time.sleep(10)
    outcome = load.outcome()
    record_scenario(
        engines="emulated",
        requests=outcome.requests,
        failed=len(outcome.failures),
        transitions=tenant.transitions(),
        fewest_serving=fewest.pods,
        took_s=round(took_s, 1),
        longest_first_token_s=round(outcome.first_tokens_s[-1], 1),
    )
    assert outcome.failures == []
    assert fewest.pods == 1
