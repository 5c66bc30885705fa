"""One service under load while one thing breaks: what was lost, when it had been sent, and how long it took to mend.

Called by the scenarios of faults.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from e2e.kubectl import wait_for
from e2e.load import Load
from e2e.scenarios.faults import Fault
from e2e.scenarios.load import Background
from e2e.scenarios.tenant import Tenant

Manifest = dict[str, Any]

START_S = 120
LOAD = Load(rate_per_s=10, max_tokens=(40, 240), timeout_s=60)

KNOWN_S = 5.0
"""After a pod died: no request that is sent later may be lost."""


class Stage:
    """One service under load while one thing breaks."""

    def __init__(self, tenant: Tenant, made: Manifest) -> None:
        self.tenant = tenant
        tenant.apply(made)
        tenant.settle(timeout_s=START_S)
        self._load = Background(tenant.base_url(), model=tenant.name, load=LOAD)

    def play(
        self, fault: Fault, *, until: Callable[[Tenant], bool], timeout_s: float, known_s: float = KNOWN_S
    ) -> dict[str, Any]:
        """What was lost, of it what was sent more than `known_s` after the fault, and the seconds from the fault until
        `until` held; ten more under load follow."""
        with self._load.running():
            began_s = time.monotonic()
            time.sleep(8)
            fault(self.tenant)
            at_s = time.monotonic() - began_s
            wait_for("recovered", lambda: until(self.tenant), timeout_s=timeout_s)
            recovered_s = time.monotonic() - began_s - at_s
            time.sleep(10)
        records = self._load.outcome().records
        lost = [one for one in records if one.failure is not None]
        later = [one for one in lost if one.scheduled_s > at_s + known_s]
        return {
            "requests": len(records),
            "failed": len(lost),
            "failed_later": len(later),
            "recovered_s": round(recovered_s, 1),
            "first": "; ".join(sorted({str(one.failure)[:80] for one in lost}))[:300],
        }
