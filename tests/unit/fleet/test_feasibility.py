"""Verify what is known to speak against a spec before anything is made, and that nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from paceline.fleet import Node, Observed
from paceline.fleet.feasibility import model_uri_to_serve, rank_memory_bytes, refusal_before_start
from paceline_core import NOT_QUANTIZED, CheckpointFacts
from tests.unit.fleet.services import CPU_DEMO, EMULATED, ONE_GPU, merged
from tests.unit.fleet.simulated_cluster import Cluster

GIB = 1024**3
FACTS = CheckpointFacts(
    attention_heads=32,
    kv_heads=8,
    hidden_size=4096,
    intermediate_size=14336,
    layers=32,
    head_dim=128,
    dtype="bfloat16",
    quantization=NOT_QUANTIZED,
    plain_kv=True,
    weights_bytes=16 * GIB,
    file_format="safetensors",
)
COMMIT = "5206a32a0bd3067aef1ce90f5528ade7d866253f"


def gpu_node(name: str, *, memory_mib: str | None, product: str = "NVIDIA-H200") -> Node:
    labels = {"nvidia.com/gpu.product": product} | (
        {"nvidia.com/gpu.memory": memory_mib} if memory_mib else {}
    )
    raw = {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}
    return Node.parse(raw)


def observed(spec: Mapping[str, Any], **known: Any) -> Observed:
    return replace(Cluster(spec).observe(), **known)


def refusal(spec: Mapping[str, Any], *, size: int = 1, **known: Any) -> str | None:
    found = refusal_before_start(observed(spec, **known), tensor_parallel_size=size)
    return found.field if found is not None else None


def test_without_facts_nothing_is_refused() -> None:
    assert refusal(ONE_GPU) is None


def test_weights_and_cache_that_no_gpu_holds_are_refused() -> None:
    nodes = (gpu_node("a", memory_mib="24576"),)
    assert refusal(ONE_GPU, facts=FACTS, nodes=nodes) == "spec.model.kvCache.size"
    assert refusal(ONE_GPU, facts=FACTS, nodes=(gpu_node("a", memory_mib="143771"),)) is None


def test_the_largest_gpu_that_may_be_had_decides() -> None:
    nodes = (gpu_node("a", memory_mib="24576"), gpu_node("b", memory_mib="143771"))
    assert refusal(ONE_GPU, facts=FACTS, nodes=nodes) is None
    other = (nodes[0], gpu_node("b", memory_mib="143771", product="NVIDIA-B200"))
    assert refusal(ONE_GPU, facts=FACTS, nodes=other) is not None


def test_a_gpu_of_unknown_size_refuses_nothing() -> None:
    nodes = (gpu_node("a", memory_mib="24576"), gpu_node("b", memory_mib=None))
    assert rank_memory_bytes(observed(ONE_GPU, nodes=nodes), tensor_parallel_size=1) is None
    assert refusal(ONE_GPU, facts=FACTS, nodes=nodes) is None


def test_a_cluster_without_gpus_yet_refuses_nothing() -> None:
    assert refusal(ONE_GPU, facts=FACTS, nodes=()) is None


def test_on_a_cpu_a_process_has_its_part_of_the_memory_limit() -> None:
    assert rank_memory_bytes(observed(CPU_DEMO), tensor_parallel_size=3) == 2 * GIB


def test_an_emulated_engine_loads_nothing_that_could_not_fit() -> None:
    assert refusal(EMULATED, size=2) is None


def test_the_int8_copy_in_the_image_is_not_judged_by_the_16_bit_one() -> None:
    assert refusal(merged(CPU_DEMO, {"model": {"quantization": {"weights": "INT8"}}})) is None


def test_every_reason_is_in_the_message_under_the_first_field() -> None:
    spec = merged(CPU_DEMO, {"model": {"kvCache": {"size": "64Mi"}, "maxModelTokens": 8192}})
    found = refusal_before_start(observed(spec), tensor_parallel_size=2)
    assert found is not None
    assert found.field == "spec.scaling.tensorParallelSize"
    assert "spec.model.kvCache.size" in found.message


@pytest.mark.parametrize(
    ("uri", "revision", "served"),
    [
        pytest.param("hf://a/b@main", COMMIT, f"hf://a/b@{COMMIT}", id="branch"),
        pytest.param("hf://a/b@main", None, "hf://a/b@main", id="unknown"),
        pytest.param("hf://a/b@main", "v1", "hf://a/b@main", id="not-a-commit"),
        pytest.param(f"hf://a/b@{COMMIT}", "0" * 40, f"hf://a/b@{COMMIT}", id="pinned-by-the-user"),
        pytest.param("pvc://claim/path", COMMIT, "pvc://claim/path", id="no-branch"),
    ],
)
def test_a_branch_is_served_at_the_commit_that_is_known(uri: str, revision: str | None, served: str) -> None:
    spec = merged(EMULATED, {"model": {"uri": uri}})
    assert model_uri_to_serve(observed(spec, model_revision=revision), serving_uri=None) == served


def test_a_larger_gpu_that_joins_lifts_the_refusal() -> None:
    cluster = Cluster(merged(ONE_GPU, {"scaling": {"mode": "Manual"}}))
    small = replace(cluster.observe(), facts=FACTS, nodes=(gpu_node("a", memory_mib="24576"),))
    from paceline.fleet import plan

    refused = plan(small, settings=cluster.settings)
    assert refused.apply == ()
    large = replace(small, status=refused.status, nodes=(gpu_node("a", memory_mib="143771"),))
    assert plan(large, settings=cluster.settings).apply != ()
