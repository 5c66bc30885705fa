"""A timing table for a model and GPU that nobody measured: datasheet figures times the share of them that is reached.

Asked where `load_table` has nothing. The answer is marked `Roofline`: good to start from, not to promise from. The
shares were set by the shipped tables of measured operations, which a test holds it against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from paceline_core.checkpoint import CheckpointFacts
from paceline_core.gpus import LEAST_KV_TOKENS, Gpu, gpu_named, kv_cache_tokens
from paceline_core.timing import StepTiming, TimingTable

TOKENS: Final = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192)
SIZES: Final = (1, 2, 4, 8)

MEMORY_SHARE: Final = 0.75
"""Of the memory bandwidth, by a product of matrices that reads its weights once."""
ARITHMETIC_SHARE: Final[Mapping[str, float]] = {"bf16": 0.75, "fp8": 0.62, "mxfp4": 0.75}
EXPERTS_SHARE: Final = 0.35
"""Of what an ordinary product reaches, by the many small ones of a mixture of experts."""
ATTENTION_ARITHMETIC_SHARE: Final = 0.6
CACHE_SHARE: Final = 0.7
"""Of the memory bandwidth, by attention that reads the KV cache."""
LINK_SHARE: Final = 0.6
ALL_REDUCE_S: Final = 6e-6
"""A message of a few bytes between the GPUs of a node."""
SEQUENCE_S: Final = 21e-6
"""The engine's own work for each sequence of a step: scheduling, sampling, the text."""
SEQUENCES_OF_TOKENS: Final = ((1, 192, 512, 1024), (1, 192, 32, 0))
"""How many sequences a step of so many tokens is taken to hold, linear between: f knows tokens alone. A small step
decodes, one token each; a large one computes a prompt, beside a few that decode; a larger one little else."""
LAYER_S: Final = 30e-6
"""What a layer costs whatever its size: kernels that start, norms, activations."""

_WEIGHT_BYTES: Final[Mapping[str, float]] = {"bf16": 2.0, "fp8": 1.0, "mxfp4": 0.53}
"""With the scales of the groups."""
_ACTIVATION_BYTES: Final = 2


class NoEstimate(ValueError):
    """Too little is known of the model, or nothing is claimed for these GPUs."""


def estimate_table(
    facts: CheckpointFacts, *, model: str, format: str, gpu: str, sizes: tuple[int, ...] = SIZES
) -> TimingTable:
    """At the sizes where the weights fit. NoEstimate where none is left, UnknownGpu where there are no figures.

    Over PCIe only a single GPU is estimated: all-reduce there depends on the board, and nobody measured it.
    """
    card = gpu_named(gpu)
    shape = _Shape.of(facts, format=format)
    linked = sizes if card.nvlink_bytes_per_s else tuple(size for size in sizes if size == 1)
    steps = {size: _step(shape, card, size) for size in linked if shape.heads % size == 0}
    fitting = {size: step for size, step in steps.items() if step.kv_cache_tokens >= LEAST_KV_TOKENS}
    if not fitting:
        over = "" if card.nvlink_bytes_per_s else ", and more than one over PCIe is not estimated: measure it"
        raise NoEstimate(
            f"{model} in {format} ({shape.weights_bytes / 1e9:.0f} GB) fits no number of {gpu} in "
            f"{', '.join(map(str, sizes))}{over}"
        )
    return TimingTable(
        model=model,
        format=format,
        gpu=gpu.removesuffix("_sxm"),
        source="Roofline",
        provenance="Estimated from config.json and the GPU's datasheet; not measured"
        + ("" if facts.plain_kv else "; KV cache as if every layer kept every token"),
        by_tensor_parallel_size=fitting,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """What a forward pass of the model reads and computes."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    format: str
    attention_weights: float
    """Of one layer, in values."""
    expert_weights: float
    """Of one expert of one layer; of the whole inner layer where there are no experts."""
    experts: int
    experts_per_token: int
    output_weights: float
    """Of the last product, in values; the embedding is as large."""
    weights_bytes: float

    @classmethod
    def of(cls, facts: CheckpointFacts, *, format: str) -> _Shape:
        if format not in _WEIGHT_BYTES:
            raise NoEstimate(f"no estimate for the format {format}: there is {', '.join(_WEIGHT_BYTES)}")
        layers, hidden = _known(facts, "layers"), _known(facts, "hidden_size")
        heads, head_dim = _known(facts, "attention_heads"), _known(facts, "head_dim")
        kv_heads = _known(facts, "kv_heads")
        inner = (facts.experts and facts.moe_intermediate_size) or _known(facts, "intermediate_size")
        experts = facts.experts or 1
        attention = 2.0 * hidden * head_dim * (heads + kv_heads)
        expert = 3.0 * hidden * inner
        output = float(hidden * _known(facts, "vocab_size"))
        counted = (
            layers * (attention + experts * expert) * _WEIGHT_BYTES[format] + 2 * output * _ACTIVATION_BYTES
        )
        return cls(
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            format=format,
            attention_weights=attention,
            expert_weights=expert,
            experts=experts,
            experts_per_token=facts.experts_per_token or 1,
            output_weights=output,
            weights_bytes=counted,
        )

    @property
    def kv_bytes_per_token(self) -> float:
        return 2.0 * self.layers * self.kv_heads * self.head_dim * _ACTIVATION_BYTES

    def experts_read(self, tokens: int) -> float:
        """On average, if every token chooses by chance."""
        return self.experts * (1 - (1 - self.experts_per_token / self.experts) ** tokens)


def _step(shape: _Shape, gpu: Gpu, size: int) -> StepTiming:
    pair_flops = 4.0 * shape.layers * shape.head_dim * shape.heads / size
    rank_kv_bytes = shape.kv_bytes_per_token / min(size, shape.kv_heads)
    return StepTiming(
        knot_tokens=TOKENS,
        knot_s=tuple(accumulate((_tokens_s(shape, gpu, size, tokens) for tokens in TOKENS), max)),
        prefill_attention_s=pair_flops / (gpu.bf16_flops * ATTENTION_ARITHMETIC_SHARE),
        decode_attention_s=rank_kv_bytes / (gpu.memory_bytes_per_s * CACHE_SHARE),
        kv_cache_tokens=kv_cache_tokens(
            gpu,
            weights_bytes=shape.weights_bytes,
            kv_bytes_per_token=shape.kv_bytes_per_token,
            kv_heads=shape.kv_heads,
            tensor_parallel_size=size,
        ),
    )


def _tokens_s(shape: _Shape, gpu: Gpu, size: int, tokens: int) -> float:
    """f of a step of so many tokens."""
    # Gates and emulated engines import the core and estimate nothing: half of their memory would be numpy.
    import numpy as np

    memory = gpu.memory_bytes_per_s * MEMORY_SHARE
    arithmetic = _flops(gpu, shape.format) * ARITHMETIC_SHARE[shape.format]

    def product_s(read: float, computed: float, *, share: float = 1.0) -> float:
        """Reading and computing overlap, but not wholly where both take long."""
        read_s = read * _WEIGHT_BYTES[shape.format] / memory
        return math.hypot(read_s, 2 * tokens * computed / (arithmetic * share)) / size

    layer_s = product_s(shape.attention_weights, shape.attention_weights)
    layer_s += product_s(
        shape.experts_read(tokens) * shape.expert_weights,
        shape.experts_per_token * shape.expert_weights,
        share=1.0 if shape.experts == 1 else EXPERTS_SHARE,
    )
    # Norms and activations: some eight passes over the hidden state, which tensor parallelism does not divide.
    layer_s += LAYER_S + 8 * tokens * shape.hidden * _ACTIVATION_BYTES / memory
    if size > 1:
        assert gpu.nvlink_bytes_per_s is not None
        message_bytes = 2 * (size - 1) / size * tokens * shape.hidden * _ACTIVATION_BYTES
        layer_s += 2 * (ALL_REDUCE_S + message_bytes / (gpu.nvlink_bytes_per_s * LINK_SHARE))
    output_s = shape.output_weights * _ACTIVATION_BYTES / size / memory
    return shape.layers * layer_s + output_s + SEQUENCE_S * float(np.interp(tokens, *SEQUENCES_OF_TOKENS))


def _flops(gpu: Gpu, format: str) -> float:
    """MXFP4 weights meet 16 bit activations."""
    return gpu.fp8_flops if format == "fp8" and gpu.fp8_flops else gpu.bf16_flops


def _known(facts: CheckpointFacts, field: str) -> int:
    value: int | None = getattr(facts, field)
    if value is None:
        raise NoEstimate(f"no estimate without {field}, which config.json does not tell")
    return value
