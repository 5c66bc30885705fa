"""What is known of a service's timing is that of its model, format, GPU and cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paceline.fleet import Node, Observed
from paceline.fleet.timing_prior import timing_prior
from paceline_core import CheckpointFacts, load_table
from tests.unit.fleet.services import CPU_DEMO, EMULATED, SEVENTY_B, merged
from tests.unit.fleet.simulated_cluster import Cluster

LLAMA = "hf://meta-llama/Llama-3.1-70B-Instruct@main"
FACTS = CheckpointFacts(
    plain_kv=True,
    attention_heads=64,
    kv_heads=8,
    head_dim=128,
    layers=80,
    dtype="bfloat16",
    weights_bytes=141_107_412_992,
)


EMULATED_H200 = merged(
    EMULATED,
    {
        "runtime": {
            "emulation": {
                "stepMilliseconds": None,
                "timing": {"gpu": "h200", "model": "llama-3.1-70b", "format": "fp8"},
            }
        }
    },
)


def observed(spec: dict[str, Any], *, product: str = "NVIDIA-H200", **changes: Any) -> Observed:
    node = Node.parse(
        {
            "metadata": {"name": "a", "labels": {"nvidia.com/gpu.product": product, "pool": "llm"}},
            "status": {"allocatable": {"nvidia.com/gpu": "8"}},
        }
    )
    return replace(Cluster(spec).observe(), nodes=(node,), **changes)


def seventy_b(**changes: Any) -> dict[str, Any]:
    return merged(SEVENTY_B, {"model": {"uri": LLAMA, **changes}, "accelerator": {"products": None}})


def test_a_known_model_has_its_table() -> None:
    prior = timing_prior(observed(seventy_b()))
    assert prior is not None
    assert prior.timing == load_table("llama-3.1-70b", "fp8", "h200").by_tensor_parallel_size


@pytest.mark.parametrize(
    ("product", "gpu"), [("NVIDIA-H100-80GB-HBM3", "h100"), ("NVIDIA-H200", "h200"), ("NVIDIA-T4", None)]
)
def test_the_gpu_is_read_from_the_label_of_the_nodes(product: str, gpu: str | None) -> None:
    prior = timing_prior(observed(seventy_b(), product=product))
    if gpu is None:
        assert prior is None
    else:
        assert prior is not None
        assert prior.timing == load_table("llama-3.1-70b", "fp8", gpu).by_tensor_parallel_size


def test_another_format_is_another_table() -> None:
    spec = seventy_b(quantization={"weights": "Auto", "source": "Auto"})
    prior = timing_prior(observed(spec))
    assert prior is not None
    assert prior.timing == load_table("llama-3.1-70b", "bf16", "h200").by_tensor_parallel_size


def test_the_cache_is_the_one_that_the_spec_gives() -> None:
    prior = timing_prior(observed(seventy_b(), facts=FACTS))
    assert prior is not None
    # 60 GiB a rank; FP8: 2 x 80 layers x heads of a rank x 128 bytes a token.
    assert prior.timing[8].kv_cache_tokens == 60 * 2**30 // (2 * 80 * 1 * 128)
    assert prior.timing[4].kv_cache_tokens == 60 * 2**30 // (2 * 80 * 2 * 128)


def test_of_an_unknown_model_nothing_is_guessed() -> None:
    spec = merged(SEVENTY_B, {"model": {"uri": "pvc://weights/mystery"}})
    assert timing_prior(observed(spec)) is None


def test_a_model_without_a_table_is_estimated_from_its_facts() -> None:
    spec = seventy_b(uri="hf://org/another-70b@main")
    facts = replace(FACTS, hidden_size=8192, intermediate_size=28672, vocab_size=128256)
    prior = timing_prior(observed(spec, facts=facts))
    assert prior is not None
    assert prior.source.startswith("Roofline")
    assert set(prior.timing) <= {1, 2, 4, 8}
    assert timing_prior(observed(spec, product="NVIDIA-T4", facts=facts)) is None


def test_emulated_and_cpu_engines_have_a_timing() -> None:
    emulated = timing_prior(observed(dict(EMULATED)))
    assert emulated is not None
    assert emulated.timing[1].step_s(decodes=50) == pytest.approx(0.010, abs=1e-6)
    on_cpu = timing_prior(observed(dict(CPU_DEMO)))
    assert on_cpu is not None
    assert on_cpu.timing[1].step_s(decodes=16) == pytest.approx(0.0765)


def test_an_emulated_gpu_has_the_timing_of_its_table() -> None:
    prior = timing_prior(observed(EMULATED_H200))
    assert prior is not None
    table = load_table("llama-3.1-70b", "fp8", "h200")
    assert prior.timing == table.by_tensor_parallel_size
    assert "emulated" in prior.source
