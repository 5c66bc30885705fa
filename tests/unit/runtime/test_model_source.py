"""What is refused before anything is loaded, with the field and the way out; what is served, from where."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from paceline_core import BUNDLED_FACTS
from paceline_runtime.launch import machine, model_source
from paceline_runtime.launch.checkpoint_files import read_facts
from paceline_runtime.launch.failure import Refused, StartFailure
from paceline_runtime.launch.model_source import Model, resolve, resolve_unloaded
from tests.unit.runtime.pod import options

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
FP8 = {"quant_method": "fp8"}


def scheme(**weights: Any) -> dict[str, Any]:
    groups = {"g": {"weights": {"type": "int", **weights}}}
    return {"quant_method": "compressed-tensors", "config_groups": groups}


GROUPS = scheme(num_bits=4, group_size=128)


def checkpoint(folder: Path, *, tensor_bytes: int = 269_030_016, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, tensor_bytes]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pvc://claim/… is mounted."""
    monkeypatch.setattr(model_source, "CLAIM_MOUNT", tmp_path / "pvc")
    return tmp_path / "pvc"


def serve(tmp_path: Path, **changes: Any) -> Model:
    return resolve(options(tmp_path, model_uri="pvc://claim/m", emulation=None, **changes))


@pytest.mark.parametrize(
    ("config", "changes", "field", "words"),
    [
        pytest.param(
            {}, {"tensor_parallel_size": 2}, "spec.scaling.tensorParallelSize", "9 attention heads", id="TP"
        ),
        pytest.param({}, {"max_model_tokens": 9000}, "spec.model.maxModelTokens", "8192", id="too long"),
        pytest.param(
            {}, {"kv_cache_bytes": 2**20}, "spec.model.kvCache.size", "write at least", id="KV too small"
        ),
        pytest.param({}, {"weights": "INT8"}, "spec.model.quantization.weights", "INT8", id="not INT8"),
        pytest.param(
            {"quantization_config": FP8},
            {"weights": "None"},
            "spec.model.quantization.weights",
            "FP8",
            id="not 16 bit",
        ),
        pytest.param({"quantization_config": GROUPS}, {}, "spec.model.uri", "group of 128", id="groups"),
        pytest.param(
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            {},
            "spec.model.uri",
            "bitsandbytes",
            id="bnb",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_field(
    tmp_path: Path, claim: Path, config: dict[str, Any], changes: dict[str, Any], field: str, words: str
) -> None:
    checkpoint(claim / "m", **config)
    with pytest.raises(Refused) as refused:
        serve(tmp_path, **changes)
    assert refused.value.field == field
    assert words in str(refused.value)


def test_weights_that_exceed_the_memory_limit_are_refused(
    tmp_path: Path, claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(claim / "m", tensor_bytes=4 * 2**30)
    monkeypatch.setattr(machine, "memory_limit_bytes", lambda: 2**30)
    with pytest.raises(Refused, match="exceed"):
        serve(tmp_path)


def test_without_a_memory_limit_nothing_is_refused_for_memory(
    tmp_path: Path, claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(claim / "m", tensor_bytes=4 * 2**40)
    monkeypatch.setattr(machine, "memory_limit_bytes", lambda: None)
    assert serve(tmp_path).facts.weights_bytes == 4 * 2**40


def test_a_gguf_file_is_refused(tmp_path: Path, claim: Path) -> None:
    (claim / "m").mkdir(parents=True)
    (claim / "m" / "model.Q4.gguf").touch()
    with pytest.raises(Refused, match="GGUF"):
        serve(tmp_path)


def test_a_uri_that_means_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        resolve(options(tmp_path, model_uri="ftp://x", emulation=None))
    assert refused.value.field == "spec.model.uri"


def test_files_that_are_not_there_are_a_failure_and_no_refusal(tmp_path: Path, claim: Path) -> None:
    """They may be there the next time: a refusal would be remembered."""
    with pytest.raises(StartFailure, match="no folder"):
        serve(tmp_path)
    (claim / "m").mkdir(parents=True)
    with pytest.raises(StartFailure, match="no weights"):
        serve(tmp_path)


def test_a_claim_is_served_from_its_mount(tmp_path: Path, claim: Path) -> None:
    checkpoint(claim / "m")
    model = serve(tmp_path, tensor_parallel_size=3)
    assert model.loaded_from.path == str(claim / "m")
    assert (model.facts.attention_heads, model.facts.kv_heads, model.facts.weights_bytes) == (
        9,
        3,
        269_030_016,
    )


@pytest.mark.parametrize(
    ("weights", "folder"), [("Auto", "smollm2-135m-instruct"), ("INT8", "smollm2-135m-instruct-int8")]
)
def test_a_bundled_model_has_a_folder_for_each_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, folder: str
) -> None:
    monkeypatch.setenv("PACELINE_BUNDLED_MODELS", str(tmp_path))
    config: dict[str, Any] = {"quantization_config": scheme(num_bits=8)} if weights == "INT8" else {}
    checkpoint(tmp_path / folder, **config)
    assert resolve(options(tmp_path, weights=weights, emulation=None)).loaded_from.path == str(
        tmp_path / folder
    )


@pytest.mark.parametrize(
    ("flags", "changes", "dtype"),
    [
        pytest.param("avx2 avx512f", {}, "float32", id="no 16-bit arithmetic"),
        pytest.param("avx512f avx512_bf16", {}, None, id="16-bit arithmetic"),
        pytest.param("avx2", {"device": "cuda"}, None, id="a GPU computes"),
        pytest.param("avx2", {"extra_args": ("--dtype=bfloat16",)}, None, id="the user said which"),
    ],
)
def test_a_cpu_without_16_bit_arithmetic_computes_in_32(
    tmp_path: Path,
    claim: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    changes: dict[str, Any],
    dtype: str | None,
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    checkpoint(claim / "m", dtype="bfloat16")
    assert serve(tmp_path, **changes).loaded_from.dtype == dtype


def test_weights_that_are_widened_are_counted_so(
    tmp_path: Path, claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : avx2\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    checkpoint(claim / "m", dtype="bfloat16")
    # 2048 tokens of this model are 45 MiB of KV cache in 16 bits, and 90 in 32.
    with pytest.raises(Refused, match="90Mi"):
        serve(tmp_path, kv_cache_bytes=60 * 2**20)


def test_a_bucket_is_left_to_vllm_and_its_facts_are_unknown(tmp_path: Path) -> None:
    model = resolve(options(tmp_path, model_uri="s3://bucket/m", emulation=None))
    assert model.loaded_from.streamed
    assert model.facts.attention_heads is None


def test_an_emulated_engine_refuses_what_is_known_without_files(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="attention heads"):
        resolve_unloaded(options(tmp_path, tensor_parallel_size=2))
    assert resolve_unloaded(options(tmp_path, tensor_parallel_size=3)).attention_heads == 9


def test_the_facts_that_the_operator_knows_of_the_bundled_model_are_those_of_its_files(
    tmp_path: Path,
) -> None:
    folder = Path.home() / ".cache/paceline/models/smollm2-135m-instruct"
    if not (folder / "config.json").exists():
        pytest.skip("the bundled model is not made: make models")
    assert read_facts(folder) == BUNDLED_FACTS["smollm2-135m-instruct"]
