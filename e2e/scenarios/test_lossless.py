"""No change of a service's shape, image or router loses a request, and no death of the operator does.

Open-loop load runs from before the change until the service has settled after it; every stream is read to its
end. Engines are emulated (constant step time); everything else is real. `test_real_engine.py` asks the same of vLLM.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.load import Load
from e2e.scenarios.disturbances import (
    Disturbance,
    KillNowAndThen,
    change_image,
    change_tensor_parallel_size,
    delete_one_pod,
    roll_router,
    scale_up_and_down,
)
from e2e.scenarios.load import Background
from e2e.scenarios.tenant import Operator, Tenant

REQUESTS_AT_LEAST = 500
RATE_PER_S = 10.0
STREAM_TOKENS = (40, 240)
"""Emulated steps of 20 ms: streams of 0.8 to 4.8 s, so that several are on every pod that moves."""

START_S = 300
"""Each kill costs the time until the dead operator's Lease has run out, and the kills go on for as long as this takes."""


@pytest.mark.parametrize(
    ("replicas", "disturb"),
    [
        pytest.param(1, scale_up_and_down, id="scale-1-3-1", marks=pytest.mark.slow),
        pytest.param(2, change_image, id="new-image"),
        pytest.param(1, change_tensor_parallel_size, id="tp-1-3-1"),
        pytest.param(2, delete_one_pod, id="delete-one-of-two-pods", marks=pytest.mark.slow),
        pytest.param(2, roll_router, id="roll-the-router", marks=pytest.mark.slow),
    ],
)
def test_no_request_is_lost_while_the_operator_is_killed(
    tenant: Tenant,
    operator: Operator,
    emulated: Callable[..., dict[str, Any]],
    replicas: int,
    disturb: Disturbance,
    record_scenario: Callable[..., None],
) -> None:
    tenant.apply(emulated(replicas=replicas))
    tenant.settle(timeout_s=START_S)
    load = Background(
        tenant.base_url(), model=tenant.name, load=Load(rate_per_s=RATE_PER_S, max_tokens=STREAM_TOKENS)
    )
    with load.running():
        time.sleep(5)
        with KillNowAndThen(operator, every_s=7) as killer:
            disturb(tenant, START_S)
            tenant.settle(timeout_s=START_S)
        load.until(requests=REQUESTS_AT_LEAST, timeout_s=180)
    outcome = load.outcome()
    record_scenario(requests=outcome.requests, failed=len(outcome.failures), operator_kills=killer.kills)
    assert outcome.requests >= REQUESTS_AT_LEAST
    assert killer.kills >= 1
    assert outcome.failures == []
