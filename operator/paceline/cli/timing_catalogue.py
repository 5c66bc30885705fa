"""Which tables are shipped: models, formats, GPUs and sizes. Constants, read by `paceline timing build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from paceline_core.gpus import LEAST_KV_TOKENS, gpu_named, kv_cache_tokens

SIZES: Final = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    checkpoint: str
    """Under which aiconfigurator-core has its config.json."""
    weights_bytes: Mapping[str, float]
    """By format. Embedding and output stay in 16 bit."""
    kv_bytes_per_token: int
    """Of a 16 bit KV cache, vLLM's default whatever the weights."""
    kv_heads: int = 8
    has_experts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    system: str
    formats: tuple[str, ...]
    sizes: tuple[int, ...] = SIZES
    engine: str = "vLLM 0.24.0"
    """Whose kernels were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One (model, format, GPU, TP)."""

    model: str
    format: str
    gpu: str
    tp: int
    kv_cache_tokens: int
    wanted: Mapping[str, object] = field(repr=False)
    """What the sampler is asked."""


MODELS: Final[Mapping[str, Model]] = {
    "llama-3.1-8b": Model(
        checkpoint="meta-llama/Meta-Llama-3.1-8B",
        weights_bytes={"bf16": 16.06e9, "fp8": 9.08e9},
        kv_bytes_per_token=2 * 32 * 8 * 128 * 2,
    ),
    "llama-3.1-70b": Model(
        checkpoint="meta-llama/Meta-Llama-3.1-70B",
        weights_bytes={"bf16": 141.1e9, "fp8": 72.66e9},
        kv_bytes_per_token=2 * 80 * 8 * 128 * 2,
    ),
    "qwen3-32b": Model(
        checkpoint="Qwen/Qwen3-32B",
        weights_bytes={"bf16": 65.52e9, "fp8": 34.32e9},
        kv_bytes_per_token=2 * 64 * 8 * 128 * 2,
    ),
    # Every other layer attends to a window of 128 tokens: only the other 18 hold a long context.
    "gpt-oss-120b": Model(
        checkpoint="openai/gpt-oss-120b",
        weights_bytes={"mxfp4": 65.25e9},
        kv_bytes_per_token=2 * 18 * 8 * 64 * 2,
        has_experts=True,
    ),
}

PLATFORMS: Final[Mapping[str, Platform]] = {
    "h100": Platform(system="h100_sxm", formats=("bf16", "fp8", "mxfp4")),
    "h200": Platform(system="h200_sxm", formats=("bf16", "fp8", "mxfp4")),
    # Over PCIe nobody measured a served model, so nothing is claimed for more than one.
    "l40s": Platform(system="l40s", formats=("bf16", "fp8", "mxfp4"), sizes=(1,)),
    "a100": Platform(system="a100_sxm", formats=("bf16",), engine="vLLM 0.14.0"),
}


def cells() -> tuple[Cell, ...]:
    """All that fit."""
    return tuple(
        cell
        for name, model in MODELS.items()
        for gpu, platform in PLATFORMS.items()
        for format in model.weights_bytes
        if format in platform.formats
        for tp in platform.sizes
        if (cell := _cell(name, format, gpu, tp)).kv_cache_tokens >= LEAST_KV_TOKENS
    )


def _cell(name: str, format: str, gpu: str, tp: int) -> Cell:
    model = MODELS[name]
    options: dict[str, object] = {}
    if format == "fp8":
        # Weights and activations with one scale for each tensor.
        options["gemm_quant_mode"] = "fp8_static"
    if model.has_experts:
        options |= {"moe_tp_size": tp, "moe_ep_size": 1}
    return Cell(
        model=name,
        format=format,
        gpu=gpu,
        tp=tp,
        kv_cache_tokens=kv_cache_tokens(
            gpu_named(gpu),
            weights_bytes=model.weights_bytes[format],
            kv_bytes_per_token=model.kv_bytes_per_token,
            kv_heads=model.kv_heads,
            tensor_parallel_size=tp,
        ),
        wanted={
            "checkpoint": model.checkpoint,
            "system": PLATFORMS[gpu].system,
            "tp": tp,
            "options": options,
        },
    )
