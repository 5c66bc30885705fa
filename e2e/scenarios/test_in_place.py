"""A full node: 1×TP8 → 2×TP4 → 4×TP2 → 1×TP8 within one pod, while a rival waits for its GPUs, and no request fails.

Eight fake GPUs on the only node, an emulated 70B by its timing table with a start of five seconds; everything else is
real. Open-loop load runs all the while. Requests are held at the gate where the only pod changes; the longest hold and
the time to first token that clients saw are recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.load import Load
from e2e.scenarios import rival
from e2e.scenarios.load import Background
from e2e.scenarios.tenant import Operator, Tenant

pytestmark = pytest.mark.slow

Manifest = dict[str, Any]

HOLD_S = 120
CHANGES = ((4, 2), (2, 4), (8, 1))
"""(tensor-parallel size, replicas), from one replica of size 8."""

CHANGE_S = 240
START_S = 120
STREAM_TOKENS = (40, 240)


def full_node(emulated: Callable[..., Manifest]) -> Manifest:
    made = emulated(
        replicas=1,
        transition={"inPlace": "Enabled", "maxHoldSeconds": HOLD_S, "pendingDeadlineSeconds": 60},
        admission={"maxRequestSeconds": 240, "maxOutputTokens": 300},
        router={"hold": {"maxRequests": 1000, "maxSeconds": HOLD_S}},
        slo={"preset": "Standard"},
    )
    spec = made["spec"]
    spec["scaling"]["tensorParallelSize"] = 8
    spec["accelerator"] = {"resourceName": "nvidia.com/gpu"}
    spec["runtime"]["emulation"] = {
        "timing": {"gpu": "h200", "model": "llama-3.1-70b", "format": "fp8"},
        "startSeconds": 5,
    }
    spec["model"]["uri"] = "hf://meta-llama/Llama-3.1-70B-Instruct@main"
    return made


def order(tenant: Tenant) -> str:
    """What the only pod was told last."""
    (pod,) = tenant.engines()
    return str(pod["metadata"].get("annotations", {}).get("paceline.dev/layout"))


@pytest.mark.parametrize(
    "kills", [pytest.param(False, id="undisturbed"), pytest.param(True, id="operator-killed")]
)
def test_a_full_node_changes_its_tensor_parallel_size_and_loses_nothing(
    tenant: Tenant,
    operator: Operator,
    emulated: Callable[..., Manifest],
    record_scenario: Callable[..., None],
    kills: bool,
) -> None:
    tenant.apply(full_node(emulated))
    tenant.settle(timeout_s=START_S)
    (pod,) = tenant.engines()
    uid = pod["metadata"]["uid"]
    rival.waits_for_gpus(tenant, gpus=2)
    load = Background(
        tenant.base_url(), model=tenant.name, load=Load(rate_per_s=4, max_tokens=STREAM_TOKENS, timeout_s=200)
    )
    took_s, killed = [], 0
    with load.running():
        time.sleep(5)
        for size, replicas in CHANGES:
            began_s = time.monotonic()
            tenant.change({"scaling": {"tensorParallelSize": size, "replicas": replicas}})
            if kills:
                for life_s in (1.5, 4.0):
                    time.sleep(life_s)
                    operator.kill()
                    killed += 1
            tenant.settle(timeout_s=CHANGE_S)
            took_s.append(round(time.monotonic() - began_s, 1))
            assert order(tenant).startswith(f"tp={size},dp={8 // size},")
            assert rival.is_pending(tenant)
            time.sleep(10)
    outcome = load.outcome()
    first_tokens_s = sorted(r.ttft_s for r in outcome.records if r.ttft_s is not None)
    (same,) = tenant.engines()
    record_scenario(
        engines="emulated",
        requests=outcome.requests,
        failed=len(outcome.failures),
        transitions=len(CHANGES),
        operator_kills=killed,
        seconds_of_each_change=" ".join(map(str, took_s)),
        longest_first_token_s=round(first_tokens_s[-1], 1),
        median_first_token_s=round(first_tokens_s[len(first_tokens_s) // 2], 3),
    )
    assert outcome.failures == []
    assert same["metadata"]["uid"] == uid
    assert first_tokens_s[-1] < HOLD_S
    assert rival.is_pending(tenant)
