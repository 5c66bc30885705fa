"""What is done to a service while it is under load. Each returns when its change has been asked for in full.

Called by `test_lossless.py` on emulated engines and by `test_real_engine.py` on vLLM, with the time that a start may
take there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from e2e.cluster.errors import ClusterError
from e2e.kubectl import KubectlError, wait_for
from e2e.scenarios.tenant import Operator, Tenant

Disturbance = Callable[[Tenant, float], None]


def scale_up_and_down(tenant: Tenant, start_s: float) -> None:
    tenant.change({"scaling": {"replicas": 3}})
    tenant.settle(timeout_s=start_s)
    time.sleep(5)
    tenant.change({"scaling": {"replicas": 1}})


def change_image(tenant: Tenant, start_s: float) -> None:
    image: str = tenant.engines()[0]["spec"]["containers"][0]["image"]
    tenant.change({"runtime": {"image": image.removesuffix(":dev") + ":next"}})


def change_tensor_parallel_size(tenant: Tenant, start_s: float) -> None:
    tenant.change({"scaling": {"tensorParallelSize": 3}})
    tenant.settle(timeout_s=start_s)
    time.sleep(5)
    tenant.change({"scaling": {"tensorParallelSize": 1}})


def delete_one_pod(tenant: Tenant, start_s: float) -> None:
    victim = tenant.engines()[0]["metadata"]["name"]
    tenant.kubectl.run("delete", "pod", victim, "--wait=false")
    wait_for("the pod gone", lambda: tenant.kubectl.find("pod", victim) is None, timeout_s=start_s)


def roll_router(tenant: Tenant, start_s: float) -> None:
    deployment = f"deployment/{tenant.name}-router"
    tenant.kubectl.run("rollout", "restart", deployment)
    tenant.kubectl.run("rollout", "status", deployment, f"--timeout={start_s:g}s", timeout_s=start_s + 10)


class KillNowAndThen:
    """Kills the operator at once and then at growing intervals, until left."""

    def __init__(self, operator: Operator, *, every_s: float) -> None:
        self._operator = operator
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.kills = 0

    def __enter__(self) -> KillNowAndThen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # What follows the change needs the operator alive for some seconds on end, so the interval grows.
        wait_s = self._every_s
        while not self._stop.is_set():
            try:
                self._operator.kill()
            except (KubectlError, ClusterError):
                # A busy API server, or an operator that does not run yet: whoever started this counts the kills.
                self._stop.wait(1)
                continue
            self.kills += 1
            self._stop.wait(wait_s)
            wait_s *= 1.5
