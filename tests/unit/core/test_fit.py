"""What is refused before a byte is loaded, and that nothing is refused for a fact that is not known."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paceline_core import (
    BUNDLED_FACTS,
    NOT_QUANTIZED,
    CheckpointFacts,
    EngineSetup,
    QuantizationFacts,
    Refusal,
    possible_tensor_parallel_sizes,
    refusals,
)

GIB = 2**30
SMOLLM2 = BUNDLED_FACTS["smollm2-135m-instruct"]
LLAMA_70B = CheckpointFacts(
    attention_heads=64,
    kv_heads=8,
    hidden_size=8192,
    intermediate_size=28672,
    layers=80,
    head_dim=128,
    dtype="bfloat16",
    vocab_size=128256,
    quantization=NOT_QUANTIZED,
    plain_kv=True,
    weights_bytes=141_107_412_992,
    file_format="safetensors",
)


def setup(**changes: Any) -> EngineSetup:
    fields: dict[str, Any] = {
        "tensor_parallel_size": 1,
        "max_model_tokens": 4096,
        "kv_cache_bytes": 4 * GIB,
    }
    return EngineSetup(**(fields | changes))


def quantized(facts: CheckpointFacts, method: str, **quantization: Any) -> CheckpointFacts:
    return dataclasses.replace(facts, quantization=QuantizationFacts(method=method, **quantization))


def only(found: tuple[Refusal, ...]) -> Refusal:
    assert len(found) == 1, found
    return found[0]


def test_the_bundled_model_takes_one_or_three() -> None:
    """Nine heads also divide by 9, but the inner layer of 1536 columns does not."""
    assert possible_tensor_parallel_sizes(SMOLLM2) == (1, 3)


def test_a_70b_takes_the_powers_of_two() -> None:
    assert possible_tensor_parallel_sizes(LLAMA_70B) == (1, 2, 4, 8, 16, 32, 64)


def test_unknown_heads_allow_no_claim_about_sizes() -> None:
    assert possible_tensor_parallel_sizes(CheckpointFacts()) == ()


@pytest.mark.parametrize(
    ("facts", "size", "says"),
    [
        (SMOLLM2, 2, "9 attention heads: write one of 1, 3"),
        (SMOLLM2, 9, "inner layer of 1536 columns: write one of 1, 3"),
        (LLAMA_70B, 3, "64 attention heads: write one of 1, 2, 4, 8, 16, 32, 64"),
        (
            CheckpointFacts(attention_heads=12, kv_heads=4),
            6,
            "4 KV heads can be neither split over nor copied to 6",
        ),
    ],
)
def test_a_tensor_parallel_size_that_does_not_divide_the_model_is_refused(
    facts: CheckpointFacts, size: int, says: str
) -> None:
    refusal = only(refusals(facts, setup(tensor_parallel_size=size)))
    assert refusal.field == "spec.scaling.tensorParallelSize"
    assert says in refusal.message


def test_kv_heads_are_copied_where_the_size_is_a_multiple() -> None:
    assert refusals(LLAMA_70B, setup(tensor_parallel_size=16)) == ()


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        pytest.param(CheckpointFacts(file_format="gguf"), "GGUF, which vLLM dropped", id="gguf-files"),
        pytest.param(quantized(LLAMA_70B, "gguf"), "GGUF, which vLLM dropped", id="gguf-config"),
        pytest.param(
            quantized(LLAMA_70B, "bitsandbytes"), "bitsandbytes, which vLLM dropped", id="bitsandbytes"
        ),
        pytest.param(
            quantized(LLAMA_70B, "compressed-tensors", sparse=True), "write the uri of a dense", id="sparse"
        ),
    ],
)
def test_a_format_that_vllm_dropped_is_the_only_thing_said_about_it(
    facts: CheckpointFacts, says: str
) -> None:
    refusal = only(refusals(facts, setup(tensor_parallel_size=7)))
    assert refusal.field == "spec.model.uri"
    assert says in refusal.message
    assert "write the uri" in refusal.message


INT8 = quantized(LLAMA_70B, "compressed-tensors", weights="INT8")
FP8 = quantized(LLAMA_70B, "fp8", weights="FP8")


@pytest.mark.parametrize(
    ("facts", "weights", "source", "says"),
    [
        pytest.param(INT8, "None", "Auto", "is not turned back", id="quantized-but-none-wanted"),
        pytest.param(LLAMA_70B, "FP8", "Checkpoint", "write source: Online", id="fp8-not-in-the-checkpoint"),
        pytest.param(INT8, "FP8", "Auto", "not quantized again", id="fp8-of-an-int8"),
        pytest.param(FP8, "FP8", "Online", "not quantized again", id="fp8-twice"),
        pytest.param(LLAMA_70B, "INT8", "Auto", "the uri of an INT8 checkpoint", id="int8-of-16-bit"),
        pytest.param(FP8, "INT4", "Checkpoint", "the uri of an INT4 checkpoint", id="int4-of-fp8"),
    ],
)
def test_a_number_format_that_is_not_in_the_checkpoint_and_cannot_be_made_is_refused(
    facts: CheckpointFacts, weights: str, source: str, says: str
) -> None:
    refusal = only(refusals(facts, setup(weights=weights, weights_source=source)))
    assert refusal.field.startswith("spec.model.quantization.")
    assert says in refusal.message


@pytest.mark.parametrize(
    ("facts", "weights", "source"),
    [
        (LLAMA_70B, "None", "Auto"),
        (LLAMA_70B, "FP8", "Auto"),
        (LLAMA_70B, "FP8", "Online"),
        (FP8, "FP8", "Auto"),
        (FP8, "FP8", "Checkpoint"),
        (INT8, "INT8", "Auto"),
        (INT8, "Auto", "Auto"),
    ],
)
def test_a_number_format_that_is_there_or_can_be_made_is_taken(
    facts: CheckpointFacts, weights: str, source: str
) -> None:
    assert refusals(facts, setup(weights=weights, weights_source=source)) == ()


def test_a_group_that_the_split_would_cut_is_refused_with_the_sizes_that_fit() -> None:
    grouped = quantized(SMOLLM2, "compressed-tensors", weights="INT4", group_sizes=(64,))
    assert refusals(grouped, setup()) == ()
    assert refusals(grouped, setup(tensor_parallel_size=3)) == ()
    wide = dataclasses.replace(grouped, attention_heads=None, kv_heads=None, intermediate_size=768)
    refusal = only(refusals(wide, setup(tensor_parallel_size=8)))
    assert refusal.field == "spec.scaling.tensorParallelSize"
    assert "96 columns" in refusal.message
    assert "group of 64" in refusal.message
    assert "write one of 1, 2, 3, 4, 6" in refusal.message


def test_a_group_that_does_not_divide_the_model_at_all_needs_another_checkpoint() -> None:
    grouped = quantized(SMOLLM2, "compressed-tensors", weights="INT4", group_sizes=(128,))
    found = refusals(grouped, setup())
    assert {one.field for one in found} == {"spec.model.uri"}
    assert "group of 128 does not divide the model's 576 columns" in found[0].message
    assert "a group of 64" in found[0].message


def test_a_block_of_fp8_is_not_cut_either() -> None:
    block = quantized(
        dataclasses.replace(LLAMA_70B, intermediate_size=1536, attention_heads=None),
        "fp8",
        weights="FP8",
        block=(128, 128),
    )
    assert refusals(block, setup(tensor_parallel_size=4)) == ()
    refusal = only(refusals(block, setup(tensor_parallel_size=8)))
    assert "192 columns" in refusal.message
    assert "write one of 1, 2, 4" in refusal.message


def test_experts_that_stay_whole_are_not_split() -> None:
    moe = quantized(
        CheckpointFacts(attention_heads=64, head_dim=128, moe_intermediate_size=1536),
        "fp8",
        weights="FP8",
        block=(128, 128),
    )
    assert "experts" in only(refusals(moe, setup(tensor_parallel_size=8))).message
    assert refusals(moe, setup(tensor_parallel_size=8, expert_parallel=True)) == ()


def test_more_tokens_than_the_model_was_made_for_are_refused() -> None:
    refusal = only(refusals(SMOLLM2, setup(max_model_tokens=8193)))
    assert refusal == Refusal(
        "spec.model.maxModelTokens", "the model was made for 8192 tokens: write 8192 or less"
    )


def test_a_kv_cache_that_holds_no_whole_request_is_refused_with_both_ways_out() -> None:
    refusal = only(refusals(LLAMA_70B, setup(max_model_tokens=32768, kv_cache_bytes=4 * GIB)))
    assert refusal.field == "spec.model.kvCache.size"
    assert "needs 10240Mi" in refusal.message
    assert "at most 13107 tokens" in refusal.message
    assert refusals(LLAMA_70B, setup(max_model_tokens=13107)) == ()


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        pytest.param(
            {"tensor_parallel_size": 1},
            "spec.scaling.tensorParallelSize",
            "write spec.scaling.tensorParallelSize: 2,",
            id="weights-alone-do-not-fit",
        ),
        pytest.param(
            {"tensor_parallel_size": 2, "kv_cache_bytes": 60 * GIB},
            "spec.model.kvCache.size",
            "write at most 7749Mi",
            id="the-kv-cache-is-too-large",
        ),
        pytest.param(
            {"tensor_parallel_size": 1, "kv_cache_bytes": 16 * GIB, "weights": "FP8"},
            "spec.model.kvCache.size",
            "write at most",
            id="fp8-at-load-counts-half",
        ),
    ],
)
def test_weights_and_kv_cache_that_exceed_the_gpu_are_refused(
    changes: dict[str, Any], field: str, says: str
) -> None:
    refusal = only(refusals(LLAMA_70B, setup(rank_memory_bytes=85_520_809_984, **changes)))
    assert refusal.field == field
    assert says in refusal.message


def test_what_fits_exactly_is_taken() -> None:
    kv_cache = int(80 * GIB * 0.92) - LLAMA_70B_HALF
    assert (
        refusals(
            LLAMA_70B, setup(tensor_parallel_size=2, kv_cache_bytes=kv_cache, rank_memory_bytes=80 * GIB)
        )
        == ()
    )
    over = setup(tensor_parallel_size=2, kv_cache_bytes=kv_cache + 1, rank_memory_bytes=80 * GIB)
    assert only(refusals(LLAMA_70B, over)).field == "spec.model.kvCache.size"


LLAMA_70B_HALF = 141_107_412_992 // 2


def test_a_cpu_has_processes_rather_than_gpus() -> None:
    refusal = only(refusals(SMOLLM2, setup(rank_memory_bytes=GIB, kv_cache_bytes=GIB, device="cpu")))
    assert "a process of 1024Mi" in refusal.message
    assert "GPU" not in refusal.message


def test_memory_that_is_not_known_refuses_nothing() -> None:
    assert refusals(LLAMA_70B, setup(kv_cache_bytes=500 * GIB, rank_memory_bytes=None)) == ()
    unweighed = dataclasses.replace(LLAMA_70B, weights_bytes=None)
    assert refusals(unweighed, setup(kv_cache_bytes=500 * GIB, rank_memory_bytes=GIB)) == ()


SETUPS = st.builds(
    EngineSetup,
    tensor_parallel_size=st.integers(1, 64),
    max_model_tokens=st.integers(16, 10**6),
    kv_cache_bytes=st.integers(2**26, 2**40),
    kv_cache_dtype=st.sampled_from(["Auto", "FP8"]),
    weights=st.sampled_from(["Auto", "None", "FP8", "INT8", "INT4"]),
    weights_source=st.sampled_from(["Auto", "Checkpoint", "Online"]),
    rank_memory_bytes=st.none() | st.integers(2**30, 2**38),
)


@given(SETUPS)
def test_a_checkpoint_of_which_nothing_is_known_is_never_refused(some: EngineSetup) -> None:
    assert refusals(CheckpointFacts(), some) == ()


@example(
    EngineSetup(
        tensor_parallel_size=1,
        max_model_tokens=16,
        kv_cache_bytes=2**26,
        kv_cache_dtype="Auto",
        weights="FP8",
        weights_source="Auto",
        rank_memory_bytes=76_761_755_827,
    ),
    {"quantization"},
)
@given(SETUPS, st.sets(st.sampled_from([field.name for field in dataclasses.fields(CheckpointFacts)])))
def test_knowing_less_never_refuses_more(some: EngineSetup, unknown: set[str]) -> None:
    """A rule may fall silent without a fact; it may not turn to another reason that full knowledge would deny."""
    less = dataclasses.replace(LLAMA_70B, **dict.fromkeys(unknown))
    full = {one.field for one in refusals(LLAMA_70B, some)}
    known = {one.field for one in refusals(less, some)}
    # One fault may move between the two memory fields: without the KV bytes the least KV cache counts as nothing.
    memory = {"spec.model.kvCache.size", "spec.scaling.tensorParallelSize"}
    assert known <= full or (known - full <= memory and full & memory)


@given(SETUPS)
def test_every_refusal_names_a_field_and_says_what_to_write(some: EngineSetup) -> None:
    for facts in (SMOLLM2, LLAMA_70B, INT8, FP8):
        for one in refusals(facts, some):
            assert one.field.startswith("spec.")
            assert "write " in one.message
