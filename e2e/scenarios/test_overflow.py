"""A queue that overflows answers 429 for as long as it is full, and not a moment longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2e.load import Load
from e2e.scenarios.load import Background, first_success_after
from e2e.scenarios.tenant import Tenant

RECOVERY_AT_MOST_S = 2.0


def test_after_a_queue_overflow_the_service_recovers_at_once(
    tenant: Tenant,
    emulated: Callable[..., dict[str, Any]],
    record_scenario: Callable[..., None],
) -> None:
    tenant.apply(
        emulated(replicas=1, runtime={"maxSequences": 2}, admission={"maxQueuedRequestsPerReplica": 2})
    )
    tenant.settle(timeout_s=120)
    flood = Background(
        tenant.base_url(), model=tenant.name, load=Load(rate_per_s=30, max_tokens=(100, 100), timeout_s=20)
    )
    with flood.running():
        flood.until(requests=100, timeout_s=30)
    refused = flood.outcome()
    # The flood's last stream has ended here: what is measured is the way back, not the work still queued.
    recovery_s = first_success_after(tenant.base_url(), model=tenant.name, timeout_s=30)
    record_scenario(requests=refused.requests, refused=len(refused.failures), recovery_s=round(recovery_s, 2))
    assert refused.failures, "the queue never overflowed"
    assert all("429" in failure for failure in refused.failures), refused.failures[:5]
    assert recovery_s < RECOVERY_AT_MOST_S
