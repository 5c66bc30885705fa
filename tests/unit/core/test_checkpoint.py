"""Facts from config.json as the publishers write it; what it does not say stays unknown."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from paceline_core import (
    BUNDLED_FACTS,
    NOT_QUANTIZED,
    CheckpointFacts,
    QuantizationFacts,
    file_format_of,
    weights_bytes_of_header,
    weights_bytes_of_index,
)

LLAMA_70B: dict[str, Any] = {
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
}


def parsed(**changes: Any) -> CheckpointFacts:
    return CheckpointFacts.parse({**LLAMA_70B, **changes})


def test_a_plain_config_gives_all_facts() -> None:
    assert parsed() == CheckpointFacts(
        attention_heads=64,
        kv_heads=8,
        hidden_size=8192,
        intermediate_size=28672,
        layers=80,
        head_dim=128,
        dtype="bfloat16",
        vocab_size=128256,
        max_position_tokens=None,  # stretched by a RoPE scaling: vLLM decides
        quantization=NOT_QUANTIZED,
        plain_kv=True,
    )


def test_no_config_is_no_facts_rather_than_zeros() -> None:
    assert CheckpointFacts.parse(None) == CheckpointFacts()
    empty = CheckpointFacts.parse({})
    assert (empty.attention_heads, empty.kv_heads, empty.weights_bytes, empty.head_dim) == (None,) * 4


@pytest.mark.parametrize(
    ("config", "heads", "kv_heads"),
    [
        pytest.param({"num_attention_heads": 32}, 32, 32, id="no-key-is-multi-head"),
        pytest.param({"n_head": 12}, 12, 12, id="gpt2"),
        pytest.param({"num_attention_heads": 71, "multi_query": True}, 71, 1, id="falcon-7b"),
        pytest.param(
            {
                "num_attention_heads": 128,
                "num_kv_heads": 8,
                "multi_query": True,
                "new_decoder_architecture": True,
            },
            128,
            8,
            id="falcon-40b",
        ),
        pytest.param(
            {"text_config": {"num_attention_heads": 16, "num_key_value_heads": 4}}, 16, 4, id="vision"
        ),
        pytest.param({"num_attention_heads": "32"}, None, None, id="not-a-number"),
        pytest.param({"num_attention_heads": 0, "num_key_value_heads": True}, None, None, id="nonsense"),
    ],
)
def test_heads_are_found_under_the_names_that_publishers_use(
    config: dict[str, Any], heads: int | None, kv_heads: int | None
) -> None:
    facts = CheckpointFacts.parse(config)
    assert (facts.attention_heads, facts.kv_heads) == (heads, kv_heads)


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({"rope_scaling": None}, 131072),
        ({"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}, 131072),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, None),
        ({"rope_scaling": None, "rope_parameters": {"full_attention": {"rope_type": "default"}}}, None),
    ],
)
def test_the_longest_sequence_is_known_only_where_nothing_stretches_it(
    changes: dict[str, Any], longest: int | None
) -> None:
    assert parsed(**changes).max_position_tokens == longest


def test_kv_heads_are_split_over_the_ranks_and_copied_where_there_are_fewer() -> None:
    of = [parsed().kv_bytes_per_token(tensor_parallel_size=n, bytes_per_value=None) for n in (1, 4, 8, 16)]
    assert of == [2 * 80 * heads * 128 * 2 for heads in (8, 2, 1, 1)]


def test_an_fp8_kv_cache_takes_a_byte_a_value() -> None:
    plain = parsed().kv_bytes_per_token(tensor_parallel_size=1, bytes_per_value=None)
    assert plain == 2 * (parsed().kv_bytes_per_token(tensor_parallel_size=1, bytes_per_value=1) or 0)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"kv_lora_rank": 512}, id="latent"),
        pytest.param({"layer_types": ["full_attention", "sliding_attention"]}, id="sliding-layers"),
        pytest.param({"sliding_window": 4096}, id="sliding-window"),
        pytest.param({"layers_block_type": ["mamba", "attention"]}, id="hybrid"),
        pytest.param({"torch_dtype": "mxfp4"}, id="unknown-dtype"),
        pytest.param({"num_hidden_layers": None}, id="unknown-layers"),
    ],
)
def test_the_kv_cache_of_a_model_that_is_not_plain_is_unknown(changes: dict[str, Any]) -> None:
    assert parsed(**changes).kv_bytes_per_token(tensor_parallel_size=1, bytes_per_value=None) is None


def test_a_sliding_window_that_is_switched_off_is_none() -> None:
    assert parsed(sliding_window=4096, use_sliding_window=False).plain_kv is True
    assert parsed(layer_types=["full_attention"] * 80).plain_kv is True


def weights(**scheme: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": scheme}}}


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        pytest.param(
            weights(type="int", num_bits=8, group_size=None, strategy="channel"),
            QuantizationFacts(method="compressed-tensors", weights="INT8"),
            id="w8a8",
        ),
        pytest.param(
            weights(type="int", num_bits=4, group_size=128),
            QuantizationFacts(method="compressed-tensors", weights="INT4", group_sizes=(128,)),
            id="w4a16",
        ),
        pytest.param(
            weights(type="float", num_bits=8, block_structure=[128, 128]),
            QuantizationFacts(method="compressed-tensors", weights="FP8", block=(128, 128)),
            id="fp8-block",
        ),
        pytest.param(
            weights(type="float", num_bits=4, group_size=16),
            QuantizationFacts(method="compressed-tensors", weights=None, group_sizes=(16,)),
            id="nvfp4-has-no-name-here",
        ),
        pytest.param(
            weights(type="int", num_bits=8) | {"sparsity_config": {"targets": ["Linear"], "format": "dense"}},
            QuantizationFacts(method="compressed-tensors", weights="INT8", sparse=True),
            id="sparse",
        ),
        pytest.param(
            weights(type="int", num_bits=8) | {"sparsity_config": {}},
            QuantizationFacts(method="compressed-tensors", weights="INT8"),
            id="sparsity-of-nothing",
        ),
        pytest.param(
            {"quant_method": "gptq", "bits": 4, "group_size": 128},
            QuantizationFacts(method="gptq", weights="INT4", group_sizes=(128,)),
            id="gptq",
        ),
        pytest.param(
            {"quant_method": "gptq", "bits": 8, "group_size": -1},
            QuantizationFacts(method="gptq", weights="INT8"),
            id="gptq-by-channel",
        ),
        pytest.param(
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            QuantizationFacts(method="fp8", weights="FP8", block=(128, 128)),
            id="fp8-of-deepseek",
        ),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            QuantizationFacts(method="bitsandbytes"),
            id="bitsandbytes",
        ),
        pytest.param({"bits": 4}, QuantizationFacts(method="unknown"), id="no-method"),
    ],
)
def test_a_quantization_is_read_as_each_tool_writes_it(
    config: dict[str, Any], facts: QuantizationFacts
) -> None:
    assert CheckpointFacts.parse({"quantization_config": config}).quantization == facts


def test_two_formats_in_one_checkpoint_have_no_one_name() -> None:
    config = weights(type="int", num_bits=4, group_size=64)
    config["config_groups"]["group_1"] = {"weights": {"type": "int", "num_bits": 8, "group_size": 128}}
    assert QuantizationFacts.parse(config) == QuantizationFacts(
        method="compressed-tensors", weights=None, group_sizes=(64, 128)
    )


def test_the_size_of_the_weights_comes_from_the_index_or_a_header() -> None:
    assert weights_bytes_of_index({"metadata": {"total_size": 7}}) == 7
    assert weights_bytes_of_index({"weight_map": {}}) is None
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"data_offsets": [0, 10]},
        "b": {"data_offsets": [10, 30]},
    }
    assert weights_bytes_of_header(header) == 30
    assert weights_bytes_of_header({"__metadata__": {}}) is None


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (["config.json", "model.safetensors"], "safetensors"),
        (["model-Q4.gguf", "model.safetensors"], "safetensors"),
        (["pytorch_model.bin"], "bin"),
        (["config.json", "model-Q4.GGUF"], "gguf"),
        (["config.json"], None),
        ([], None),
    ],
)
def test_the_form_of_the_files_is_the_one_that_would_be_loaded(names: list[str], form: str | None) -> None:
    assert file_format_of(names) == form


@pytest.mark.vllm
@pytest.mark.parametrize("name", sorted(BUNDLED_FACTS))
def test_the_bundled_facts_are_those_of_the_files(name: str) -> None:
    cache = Path(os.environ.get("PACELINE_CACHE", Path.home() / ".cache" / "paceline"))
    folder = cache / "models" / name
    with (folder / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    read = CheckpointFacts.parse(
        json.loads((folder / "config.json").read_text()),
        weights_bytes=weights_bytes_of_header(header),
        file_format=file_format_of(path.name for path in folder.iterdir()),
    )
    assert read == BUNDLED_FACTS[name]
