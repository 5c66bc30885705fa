"""The closed loop on the real cluster: load, pods, Prometheus, planner and back, and no request is lost.

Engines are emulated unless the test says otherwise; API server, kubelet, scheduler, router, gate and Prometheus
are real. Starts are short (emulated) and the loop looks every 5 s instead of 15, so that a scenario takes minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from e2e.cluster.choice import Cluster
from e2e.kubectl import wait_for
from e2e.load import Load
from e2e.scenarios.conftest import ROOT
from e2e.scenarios.load import Background, targets
from e2e.scenarios.rival import holds_gpus
from e2e.scenarios.tenant import A_70B, Operator, Tenant

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("closed_loop")]

Manifest = dict[str, Any]

START_S = 120


def auto(emulated: Callable[..., Manifest], **spec: Any) -> Manifest:
    """Eight requests at a time in a replica, 20 ms a step: 5 a second of 80 tokens each."""
    made = emulated(replicas=1, **spec)
    made["spec"]["scaling"] = {
        "mode": "Auto",
        "replicas": 1,
        "tensorParallelSize": 1,
        "allowedTensorParallelSizes": [1],
        "replicaBounds": {"min": 1, "max": 6},
        "scaleDown": {"stabilizationSeconds": 20},
        **spec.get("scaling", {}),
    }
    made["spec"]["runtime"]["maxSequences"] = spec.get("runtime", {}).get("maxSequences", 8)
    # A jump of eight times fills the ordinary queue of 64 in eight seconds, and what comes then is refused.
    made["spec"]["admission"]["maxQueuedRequestsPerReplica"] = 1000
    made["spec"]["slo"] = spec.get("slo", {"preset": "Standard"})
    return made


def desired(tenant: Tenant) -> tuple[int, int]:
    """(replicas, tensor-parallel size)"""
    shape = tenant.observe()["status"]["shape"]["desired"]
    return shape["replicas"], shape["tensorParallelSize"]


def serving_sizes(tenant: Tenant) -> list[int]:
    return [int(p["metadata"]["labels"]["paceline.dev/tensor-parallel-size"]) for p in tenant.serving()]


def ready(tenant: Tenant) -> None:
    wait_for("Ready and measured", lambda: tenant.holds("Ready", "MetricsAvailable"), timeout_s=START_S)


def quiet(tenant: Tenant, replicas: int) -> None:
    """That many serve, and nothing is on its way out any more."""
    wait_for(
        f"{replicas} replicas and no more",
        lambda: len(tenant.serving()) == replicas and len(tenant.engines()) == replicas,
        timeout_s=240,
    )


def test_auto_follows_the_load_up_and_down_and_loses_nothing(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    tenant.apply(auto(emulated))
    ready(tenant)
    calm = Load(rate_per_s=1.5, max_tokens=(80, 80), ignore_eos=True)
    busy = Load(rate_per_s=12, max_tokens=(80, 80), ignore_eos=True, seed=7)
    first = Background(tenant.base_url(), model=tenant.name, load=calm)
    began_s = time.monotonic()
    with first.running():
        time.sleep(30)
        assert desired(tenant) == (1, 1)
        second = Background(tenant.base_url(), model=tenant.name, load=busy)
        with second.running():
            most = wait_for(
                "more replicas are Ready",
                lambda: len(tenant.serving()) if len(tenant.serving()) >= 3 else None,
                timeout_s=180,
            )
            up_s = time.monotonic() - began_s - 30
            time.sleep(40)
            most = max(most, len(tenant.serving()))
        # Not one: a load that rose eightfold within minutes may do so again, and the forecast says so for a while.
        wait_for("most of them given back", lambda: desired(tenant)[0] <= 2, timeout_s=480)
        quiet(tenant, desired(tenant)[0])
    outcomes = (first.outcome(), second.outcome())
    failures = [line for one in outcomes for line in one.failures]
    status = tenant.observe()["status"]
    record_scenario(
        requests=sum(one.requests for one in outcomes),
        failed=len(failures),
        most_replicas=most,
        seconds_to_three_ready=round(up_s, 1),
        decisions=len(status["decisions"]),
    )
    assert failures == []
    assert most >= 3


def test_a_killed_operator_changes_nothing_of_that(
    tenant: Tenant,
    operator: Operator,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
) -> None:
    tenant.apply(auto(emulated, admission={"maxQueuedRequestsPerReplica": 300, "maxRequestSeconds": 120}))
    ready(tenant)
    load = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=7, max_tokens=(80, 80), ignore_eos=True),
    )
    kills = 0
    with load.running():
        for life_s in (4, 9, 16):
            time.sleep(life_s)
            operator.kill()
            kills += 1
        wait_for("more replicas are Ready", lambda: len(tenant.serving()) >= 2, timeout_s=240)
    outcome = load.outcome()
    record_scenario(requests=outcome.requests, failed=len(outcome.failures), operator_kills=kills)
    # Seven requests a second are more than one replica carries: its queue holds them until another is there.
    assert outcome.failures == []


def test_a_shift_of_the_mix_changes_the_tensor_parallel_size(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    """Emulated: Llama 3.1 70B in FP8 on H200s. Short prompts meet 200 ms at TP 2; 3,000 tokens are read in 210 ms
    there, whatever the number of replicas, and in 145 ms at TP 4."""
    made = auto(
        emulated,
        slo=targets(ttft_s=0.2, tpot_s=0.04),
        scaling={
            "tensorParallelSize": 2,
            "allowedTensorParallelSizes": [2, 4],
            "replicaBounds": {"min": 1, "max": 2},
        },
        runtime={"maxSequences": 64},
        transition={"minDwellSeconds": 60},
    )
    made["spec"]["model"] = A_70B
    made["spec"]["runtime"]["emulation"] = {
        "startSeconds": 3,
        "timing": {"gpu": "h200", "model": "llama-3.1-70b", "format": "fp8"},
    }
    tenant.apply(made)
    ready(tenant)
    short = Load(rate_per_s=0.7, max_tokens=(40, 40), ignore_eos=True)
    long = Load(rate_per_s=0.7, max_tokens=(40, 40), ignore_eos=True, seed=7, prompts=("four " * 2400,))
    first = Background(tenant.base_url(), model=tenant.name, load=short)
    with first.running():
        time.sleep(45)
        assert desired(tenant)[1] == 2
    second = Background(tenant.base_url(), model=tenant.name, load=long)
    with second.running():
        wait_for("TP 4 is asked for", lambda: desired(tenant)[1] == 4, timeout_s=180)
        wait_for("and serves alone", lambda: set(serving_sizes(tenant)) == {4}, timeout_s=180)
        time.sleep(40)
    third = Background(tenant.base_url(), model=tenant.name, load=short)
    with third.running():
        # Down to a smaller size only on the evidence of ten minutes.
        wait_for("TP 2 is enough again", lambda: desired(tenant)[1] == 2, timeout_s=900)
        wait_for("and serves alone", lambda: set(serving_sizes(tenant)) == {2}, timeout_s=180)
    outcomes = [one.outcome() for one in (first, second, third)]
    failures = [line for one in outcomes for line in one.failures]
    reasons = [one["reason"] for one in tenant.observe()["status"]["decisions"]]
    record_scenario(
        requests=sum(one.requests for one in outcomes),
        failed=len(failures),
        transitions=tenant.transitions(),
        reasons=",".join(reasons),
    )
    assert failures == []


def _rival(tenant: Tenant) -> None:
    """Five of the node's eight GPUs."""
    holds_gpus(tenant, gpus=5)


def _quota(tenant: Tenant) -> None:
    """Three GPUs in this namespace."""
    hard = {"requests.nvidia.com/gpu": "3"}
    tenant.kubectl.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"}, "spec": {"hard": hard}}
    )


@pytest.mark.parametrize(
    ("leaves_three", "limit"),
    [pytest.param(_rival, "Inventory", id="a-rival"), pytest.param(_quota, "Quota", id="a-quota")],
)
def test_gpus_that_cannot_be_had_are_not_asked_for(
    tenant: Tenant,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
    leaves_three: Callable[[Tenant], None],
    limit: str,
) -> None:
    """Three GPUs can be had and more are needed: three replicas, none is ever Pending, and none is refused."""
    tenant.apply(auto(emulated))
    leaves_three(tenant)
    ready(tenant)
    load = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=20, max_tokens=(80, 80), ignore_eos=True),
    )
    pending = 0
    with load.running():
        wait_for("three replicas", lambda: len(tenant.serving()) == 3, timeout_s=180)
        for _ in range(20):
            time.sleep(1)
            pending += sum(one["status"]["phase"] == "Pending" for one in tenant.engines())
    status = tenant.observe()["status"]
    limits = {one.get("limit") for one in status["decisions"]}
    refused = tenant.kubectl.run("get", "events", "--field-selector", "reason=FailedCreate", "-o", "name")
    record_scenario(
        pending_looks=pending,
        pods_refused=len(refused.split()),
        replicas=len(tenant.serving()),
        limits=",".join(map(str, limits)),
    )
    assert pending == 0
    assert refused == ""
    assert desired(tenant) == (3, 1)
    assert limit in limits


def test_auto_scales_real_vllm_on_the_cpu(
    tenant: Tenant, cluster: Cluster, record_scenario: Callable[..., None]
) -> None:
    """SmolLM2-135M on stock vLLM, from real metrics: 1 to 2 replicas under load and back without it."""
    cluster.ensure_images(("runtime-cpu",))
    service: Manifest = yaml.safe_load((ROOT / "examples" / "smollm2.yaml").read_text(encoding="utf-8"))
    service["metadata"] = {"name": "chat"}
    service["spec"]["model"].pop("servedNames", None)
    service["spec"]["scaling"] = {
        "mode": "Auto",
        "replicas": 1,
        "tensorParallelSize": 1,
        "allowedTensorParallelSizes": [1],
        "replicaBounds": {"min": 1, "max": 2},
        "scaleDown": {"stabilizationSeconds": 30},
    }
    service["spec"].setdefault("admission", {})["maxRequestSeconds"] = 120
    tenant.apply(service)
    wait_for("Ready", lambda: (tenant.condition("Ready") or {}).get("status") == "True", timeout_s=420)
    load = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=2.5, max_tokens=(48, 64), ignore_eos=True, timeout_s=240),
    )
    with load.running():
        wait_for("two replicas serve", lambda: len(tenant.serving()) == 2, timeout_s=600)
        time.sleep(30)
    calm = Background(
        tenant.base_url(),
        model=tenant.name,
        load=Load(rate_per_s=0.2, max_tokens=(8, 8), ignore_eos=True, timeout_s=240),
    )
    with calm.running():
        wait_for("one replica again", lambda: desired(tenant)[0] == 1, timeout_s=420)
        quiet(tenant, 1)
    outcomes = (load.outcome(), calm.outcome())
    failures = [line for one in outcomes for line in one.failures]
    record_scenario(requests=sum(one.requests for one in outcomes), failed=len(failures))
    assert failures == []
