"""What breaks beside or in a service under load. Each returns when the fault is there.

Called by `test_faults.py`. Engines are emulated, so that one of them can be told to die or to hang.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2e.kubectl import wait_for
from e2e.scenarios import rival
from e2e.scenarios.tenant import Manifest, Tenant

Fault = Callable[[Tenant], None]
Spec = dict[str, Any]

WIDE = 3
"""Two engines of this size and two of one fill the node's eight GPUs."""

AN_IMAGE_THAT_IS_NOT_THERE: Spec = {"runtime": {"image": "registry.invalid/paceline/router:none"}}
AN_ENGINE_THAT_DIES_ON_LOAD: Spec = {"runtime": {"env": [{"name": "EMULATE_FAULT", "value": "DieLoading"}]}}
AN_ENGINE_THAT_ANSWERS_OTHERWISE: Spec = {
    "runtime": {"env": [{"name": "EMULATE_FAULT", "value": "WrongAnswers"}]}
}
AN_ENGINE_THAT_IS_SLOW: Spec = {"runtime": {"env": [{"name": "EMULATE_FAULT", "value": "Slow"}]}}
A_NODE_THAT_IS_NOT_THERE: Spec = {"accelerator": {"nodeSelector": {"paceline.dev/there-is": "none"}}}


def kill_an_engine(tenant: Tenant) -> None:
    tenant.kill(tenant.engines()[0])


def kill_a_router(tenant: Tenant) -> None:
    tenant.kill(tenant.routers()[0])


def end_an_engine_process(tenant: Tenant) -> None:
    """As a crash: the pod stays, and its container starts again."""
    _emulate(tenant, "Die")


def hang_an_engine(tenant: Tenant) -> None:
    """It takes requests and makes no step; its server answers."""
    _emulate(tenant, "Hang")


def slow_an_engine(tenant: Tenant) -> None:
    """Each step of it takes five times as long."""
    _emulate(tenant, "Slow")


def take_the_gpus_of_a_change(tenant: Tenant) -> None:
    """Somebody of a higher priority comes when the pods of the new size have their GPUs: the scheduler ends those pods
    for it, and the next ones find no room."""
    tenant.change({"scaling": {"tensorParallelSize": WIDE}})
    wait_for("the new pods have their GPUs", lambda: len(_of_size(tenant, WIDE)) == 2, timeout_s=60)
    rival.takes_gpus(tenant, gpus=2 * WIDE)


def ask_for_an_image_that_is_not_there(tenant: Tenant) -> None:
    tenant.change(AN_IMAGE_THAT_IS_NOT_THERE)


def ask_for_an_engine_that_dies_on_load(tenant: Tenant) -> None:
    tenant.change(AN_ENGINE_THAT_DIES_ON_LOAD)


def ask_for_an_engine_that_answers_otherwise(tenant: Tenant) -> None:
    tenant.change(AN_ENGINE_THAT_ANSWERS_OTHERWISE)


def ask_for_an_engine_that_is_slow(tenant: Tenant) -> None:
    """Five times slower than those that serve."""
    tenant.change(AN_ENGINE_THAT_IS_SLOW)


def put_an_autoscaler_on_it(tenant: Tenant) -> None:
    """An HPA that wants three replicas of the engines' Deployment, whatever their load."""
    (engines,) = {
        one["metadata"]["name"]
        for one in tenant.kubectl.list("deployments", tenant.engine_selector)
        if one["spec"]["replicas"]
    }
    tenant.kubectl.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "theirs"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": engines},
                "minReplicas": 3,
                "maxReplicas": 3,
            },
        }
    )
    wait_for(
        "the HPA's three replicas",
        lambda: tenant.kubectl.get("deployment", engines)["spec"]["replicas"] == 3,
        timeout_s=90,
    )


def _of_size(tenant: Tenant, size: int) -> list[Manifest]:
    """Engines of it that have a node."""
    return [
        one
        for one in tenant.engines()
        if one["metadata"]["labels"]["paceline.dev/tensor-parallel-size"] == str(size)
        and one["spec"].get("nodeName")
    ]


def _emulate(tenant: Tenant, fault: str) -> None:
    pod = tenant.engines()[0]["metadata"]["name"]
    tenant.kubectl.run("exec", pod, "--", "paceline-runtime", "emulation", f"fault={fault}")
