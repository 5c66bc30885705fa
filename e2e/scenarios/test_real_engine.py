"""The same promises with stock vLLM and real weights: SmolLM2-135M on this machine's CPU, one request a second.

One in four seconds, and fewer requests, where the tensor-parallel size changes: three ranks on two cores were seen to
make two to six steps a second, and more would only queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from e2e.cluster.choice import Cluster
from e2e.load import Load
from e2e.scenarios.conftest import ROOT
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

pytestmark = pytest.mark.slow

START_S = 900
"""Engines that start share two cores with those that serve: many minutes on a busy machine. A limit, not a claim."""


@pytest.fixture(scope="module", autouse=True)
def _images(cluster: Cluster) -> None:
    cluster.ensure_images(("runtime-cpu",))
    cluster.tag("runtime-cpu", "next")


@pytest.fixture
def smollm2() -> Callable[..., dict[str, Any]]:
    def manifest(*, replicas: int) -> dict[str, Any]:
        service: dict[str, Any] = yaml.safe_load(
            (ROOT / "examples" / "smollm2.yaml").read_text(encoding="utf-8")
        )
        service["metadata"] = {"name": "chat"}
        service["spec"]["model"].pop("servedNames", None)
        service["spec"]["scaling"] = {"mode": "Manual", "replicas": replicas, "tensorParallelSize": 1}
        # Engines that start take the cores from those that serve: what arrives meanwhile waits, and is not shed.
        # Two old and two new engines have to fit at once on a node of two cores.
        service["spec"]["runtime"]["resources"] = {"requests": {"cpu": "150m", "memory": "2560Mi"}}
        service["spec"]["admission"] = {"maxRequestSeconds": 300, "maxQueuedRequestsPerReplica": 512}
        return service

    return manifest


@pytest.mark.parametrize(
    ("replicas", "disturb", "rate_per_s", "requests_at_least"),
    [
        pytest.param(1, scale_up_and_down, 1.0, 500, id="scale-1-3-1"),
        pytest.param(2, change_image, 1.0, 500, id="new-image"),
        pytest.param(1, change_tensor_parallel_size, 0.25, 150, id="tp-1-3-1"),
        pytest.param(2, delete_one_pod, 1.0, 500, id="delete-one-of-two-pods"),
        pytest.param(2, roll_router, 1.0, 500, id="roll-the-router"),
    ],
)
def test_no_request_to_a_real_engine_is_lost(
    tenant: Tenant,
    operator: Operator,
    smollm2: Callable[..., dict[str, Any]],
    replicas: int,
    disturb: Disturbance,
    rate_per_s: float,
    requests_at_least: int,
    record_scenario: Callable[..., None],
) -> None:
    tenant.apply(smollm2(replicas=replicas))
    tenant.settle(timeout_s=START_S)
    load = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=rate_per_s, max_tokens=(16, 32), ignore_eos=True, timeout_s=300),
    )
    with load.running():
        time.sleep(5)
        with KillNowAndThen(operator, every_s=20) as killer:
            disturb(tenant, START_S)
            tenant.settle(timeout_s=START_S)
        load.until(requests=requests_at_least, timeout_s=2 * requests_at_least / rate_per_s)
    outcome = load.outcome()
    record_scenario(requests=outcome.requests, failed=len(outcome.failures), operator_kills=killer.kills)
    assert outcome.requests >= requests_at_least
    assert outcome.failures == []
