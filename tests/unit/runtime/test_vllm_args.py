"""What vLLM is started with, word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paceline_core import NOT_QUANTIZED, QuantizationFacts
from paceline_runtime.launch.failure import Refused
from paceline_runtime.launch.vllm_args import LoadedFrom, vllm_args, vllm_env
from tests.unit.runtime.pod import options

PLAIN = LoadedFrom(path="/models/m", streamed=False, quantization=NOT_QUANTIZED)
BUCKETS = {"time_to_first_token": [0.5, 1.0]}


def args_of(model: LoadedFrom = PLAIN, **changes: Any) -> list[str]:
    given = options(Path("/run"), emulation=None, **changes)
    return vllm_args(given, model=model, buckets=BUCKETS)


def value_of(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


def test_the_plain_case() -> None:
    assert args_of() == [
        *("--host", "127.0.0.1"),
        *("--port", "8000"),
        *("--model", "/models/m"),
        *("--served-model-name", "m"),
        *("--tensor-parallel-size", "1"),
        *("--max-model-len", "2048"),
        *("--kv-cache-memory-bytes", "268435456"),
        *("--kv-cache-dtype", "auto"),
        "--enable-prefix-caching",
        *("--max-num-seqs", "8"),
        *("--max-num-queued-reqs", "16"),
        *("--max-num-queued-tokens", "100000"),
        *("--shutdown-timeout", "30"),
        *("--custom-histogram-buckets", '{"time_to_first_token":[0.5,1.0]}'),
        *("--middleware", "paceline_runtime.vllm_plugin.middleware.RequestLedger"),
        "--disable-uvicorn-access-log",
        "--enforce-eager",
        *("--override-generation-config", '{"max_new_tokens":512}'),
    ]


def test_the_engine_computes_in_what_was_found_best() -> None:
    widened = LoadedFrom(path="/models/m", streamed=False, quantization=NOT_QUANTIZED, dtype="float32")
    assert value_of(args_of(widened), "--dtype") == "float32"
    assert "--dtype" not in args_of()


def test_every_option_set() -> None:
    args = args_of(
        LoadedFrom(path="s3://bucket/model", streamed=True, quantization=None),
        served_names=("a", "b"),
        tensor_parallel_size=4,
        kv_cache_dtype="FP8",
        prefix_caching="Disabled",
        max_batched_tokens=2048,
        weights="FP8",
        weights_source="Online",
        max_request_s=99.5,
        trust_remote_code=True,
        eager=False,
        extra_args=("--enable-auto-tool-choice", "--tool-call-parser=hermes"),
    )
    assert args[args.index("--served-model-name") + 1 :][:2] == ["a", "b"]
    assert value_of(args, "--tensor-parallel-size") == "4"
    assert value_of(args, "--kv-cache-dtype") == "fp8"
    assert "--no-enable-prefix-caching" in args
    assert value_of(args, "--max-num-batched-tokens") == "2048"
    assert value_of(args, "--quantization") == "fp8"
    assert value_of(args, "--load-format") == "runai_streamer"
    assert value_of(args, "--shutdown-timeout") == "100"
    assert "--trust-remote-code" in args
    assert "--enforce-eager" not in args
    assert "--enable-auto-tool-choice" in args
    assert "--tool-call-parser=hermes" in args


@pytest.mark.parametrize(
    ("weights", "source", "checkpoint", "online"),
    [
        pytest.param("Auto", "Auto", NOT_QUANTIZED, False, id="as it is"),
        pytest.param("FP8", "Auto", NOT_QUANTIZED, True, id="made at load"),
        pytest.param("FP8", "Online", NOT_QUANTIZED, True, id="asked to be made at load"),
        pytest.param("FP8", "Auto", QuantizationFacts(method="fp8", weights="FP8"), False, id="FP8 already"),
        pytest.param(
            "FP8", "Checkpoint", QuantizationFacts(method="fp8", weights="FP8"), False, id="asked for"
        ),
        pytest.param(
            "INT8", "Auto", QuantizationFacts(method="compressed-tensors", weights="INT8"), False, id="INT8"
        ),
    ],
)
def test_only_fp8_is_made_at_load_and_only_of_16_bit(
    weights: str, source: str, checkpoint: QuantizationFacts, online: bool
) -> None:
    model = LoadedFrom(path="/m", streamed=False, quantization=checkpoint)
    assert ("--quantization" in args_of(model, weights=weights, weights_source=source)) == online


def test_eager_is_said_once() -> None:
    assert args_of(eager=True, extra_args=("--enforce-eager",)).count("--enforce-eager") == 1


def test_a_generation_config_of_the_user_cannot_lift_the_longest_answer() -> None:
    args = args_of(extra_args=('--override-generation-config={"temperature":0.5,"max_new_tokens":9999}',))
    assert json.loads(value_of(args, "--override-generation-config")) == {
        "temperature": 0.5,
        "max_new_tokens": 512,
    }
    assert args.count("--override-generation-config") == 1


@pytest.mark.parametrize(
    "extra",
    [
        "--port=9000",
        "--middleware=evil.Middleware",
        "--quantization=bitsandbytes",
        "--tool-call-parser",
        "--enforce-eager=1",
        "serve",
        "--override-generation-config=[1]",
    ],
)
def test_an_argument_that_is_not_allowed_is_refused_and_named(extra: str) -> None:
    with pytest.raises(Refused) as refused:
        args_of(extra_args=(extra,))
    assert refused.value.field == "spec.runtime.extraArgs"
    assert extra.partition("=")[0] in str(refused.value)


def test_the_environment_keeps_vllm_to_itself() -> None:
    assert vllm_env(model=PLAIN, eager=False) == {
        "VLLM_PLUGINS": "paceline",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }
    assert vllm_env(model=PLAIN, eager=True)["TORCH_COMPILE_DISABLE"] == "1"
    streamed = LoadedFrom(path="s3://b/m", streamed=True, quantization=None)
    assert "HF_HUB_OFFLINE" not in vllm_env(model=streamed, eager=False)
