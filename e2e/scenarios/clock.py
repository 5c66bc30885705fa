"""The wall clock of the operator's process, which a test sets while it runs.

Called by `test_operator_faults.py`. libfaketime is preloaded into the operator's container, and at each look at the clock it
reads how far that is ahead. The monotonic clock and the times of files stay, as where somebody sets a machine's clock.
"""

from __future__ import annotations

import base64
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from e2e.cluster.layout import Layout
from e2e.cluster.packages import ensure_packages
from e2e.kubectl import wait_for
from e2e.scenarios.tenant import Manifest, Operator, is_leaving

LIBRARY = Path("/usr/lib", str(sysconfig.get_config_var("MULTIARCH")), "faketime", "libfaketimeMT.so.1")
PACKAGES = {str(LIBRARY): "libfaketime"}

NAME = "faketime"
BROUGHT, TOLD = "/opt/faketime", "/run/faketime"
SETTINGS = {
    "LD_PRELOAD": f"{BROUGHT}/{LIBRARY.name}",
    "FAKETIME_TIMESTAMP_FILE": f"{TOLD}/ahead",
    "FAKETIME_NO_CACHE": "1",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "NO_FAKE_STAT": "1",
}

RENEWED_S = 30
NEAR_S = 60


@dataclass(frozen=True, slots=True)
class Clock:
    operator: Operator

    def set_ahead(self, ahead_s: int) -> None:
        """Returns when the operator goes by it: it writes its own time into its Lease."""
        (pod,) = (one for one in self.operator.pods() if not is_leaving(one))
        # Renamed into its place: nobody may read half of it.
        script = f"echo {ahead_s:+d} > {TOLD}/next && mv {TOLD}/next {TOLD}/ahead"
        self.operator.kubectl.run("exec", pod["metadata"]["name"], "--", "sh", "-c", script)
        wait_for(
            f"the operator's clock is {ahead_s} s ahead",
            lambda: abs(self.ahead_s() - ahead_s) < NEAR_S,
            timeout_s=RENEWED_S,
        )

    def ahead_s(self) -> float:
        """Of the machine's, when the Lease was last renewed."""
        renewed = datetime.fromisoformat(self.operator.lease()["renewTime"])
        return renewed.timestamp() - time.time()


@contextmanager
def movable_clock(operator: Operator, *, layout: Layout) -> Iterator[Clock]:
    """It is right at first."""
    ensure_packages(PACKAGES, layout)
    operator.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME},
            "binaryData": {LIBRARY.name: base64.b64encode(LIBRARY.read_bytes()).decode()},
        }
    )
    try:
        with operator.altered(_preloaded()):
            yield Clock(operator)
    finally:
        operator.kubectl.run("delete", "configmap", NAME)


def _preloaded() -> Manifest:
    return {
        "containers": [
            {
                "name": "operator",
                "env": [{"name": name, "value": value} for name, value in SETTINGS.items()],
                "volumeMounts": [
                    {"name": "faketime", "mountPath": BROUGHT, "readOnly": True},
                    {"name": "ahead", "mountPath": TOLD},
                ],
            }
        ],
        "volumes": [{"name": "faketime", "configMap": {"name": NAME}}, {"name": "ahead", "emptyDir": {}}],
    }
