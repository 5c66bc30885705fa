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

from e2e.kubectl import wait_for
from e2e.load import Load
from e2e.scenarios import rival
from e2e.scenarios.load import Background
from e2e.scenarios.tenant import A_70B, Operator, Tenant
from e2e.scenarios.test_auto import auto, desired, ready

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
    first_tokens_s = outcome.first_tokens_s
    (same,) = tenant.engines()
    record_scenario(
        engines="emulated",
        requests=outcome.requests,
        failed=len(outcome.failures),
        transitions=tenant.transitions(),
        operator_kills=killed,
        seconds_of_each_change=" ".join(map(str, took_s)),
        longest_first_token_s=round(first_tokens_s[-1], 1),
        median_first_token_s=round(first_tokens_s[len(first_tokens_s) // 2], 3),
    )
    assert outcome.failures == []
    assert same["metadata"]["uid"] == uid
    assert first_tokens_s[-1] < HOLD_S
    assert rival.is_pending(tenant)


@pytest.mark.usefixtures("closed_loop")
def test_auto_divides_the_only_pod_of_a_full_node_when_the_load_outgrows_it(
    tenant: Tenant, emulated: Callable[..., Manifest], record_scenario: Callable[..., None]
) -> None:
    """Emulated: 20 ms a step and eight requests at a time, so that one engine carries five requests a second, of whatever
    size it is."""
    made = auto(
        emulated,
        scaling={"tensorParallelSize": 8, "allowedTensorParallelSizes": [4, 8]},
        transition={"inPlace": "Enabled", "maxHoldSeconds": HOLD_S},
        admission={"maxRequestSeconds": 240, "maxOutputTokens": 300},
        router={"hold": {"maxRequests": 1000, "maxSeconds": HOLD_S}},
    )
    made["spec"]["model"] = A_70B
    tenant.apply(made)
    ready(tenant)
    (pod,) = tenant.engines()
    rival.waits_for_gpus(tenant, gpus=2)

    def load(rate_per_s: float) -> Background:
        of = Load(rate_per_s=rate_per_s, max_tokens=(80, 80), ignore_eos=True, timeout_s=200)
        return Background(tenant.base_url(), model=tenant.name, load=of)

    calm, more = load(2), load(5)
    with calm.running():
        time.sleep(45)
        assert desired(tenant) == (1, 8)
        with more.running():
            rose_at_s = time.monotonic()
            wait_for("two engines of TP 4 are asked for", lambda: desired(tenant) == (2, 4), timeout_s=180)
            asked_s = time.monotonic() - rose_at_s
            wait_for("and serve", lambda: _shape(tenant) == (2, 4), timeout_s=CHANGE_S)
            served_s = time.monotonic() - rose_at_s
            time.sleep(60)
    outcomes = (calm.outcome(), more.outcome())
    failures = [line for one in outcomes for line in one.failures]
    (same,) = tenant.engines()
    decisions = [one for one in tenant.observe()["status"]["decisions"] if "in place" in one["message"]]
    record_scenario(
        engines="emulated",
        requests=sum(one.requests for one in outcomes),
        failed=len(failures),
        transitions=tenant.transitions(),
        asked_for_s=round(asked_s, 1),
        served_s=round(served_s, 1),
        longest_first_token_s=round(max(one.first_tokens_s[-1] for one in outcomes), 1),
        decision=decisions[0]["message"] if decisions else None,
    )
    assert failures == []
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert decisions
    assert rival.is_pending(tenant)


def _shape(tenant: Tenant) -> tuple[int, int] | None:
    """(replicas, tensor-parallel size) that serve now; None while none does."""
    current = tenant.observe()["status"]["shape"].get("current")
    return None if current is None else (current["replicas"], current["tensorParallelSize"])
