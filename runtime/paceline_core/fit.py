"""Whether a checkpoint can be served as the spec wants it: refusals before a byte is loaded. Pure.
 Asked by the operator with the facts that it could read, and by the launcher in the pod with those of the
files it has; both show the same text. A rule that lacks a fact does not speak: vLLM then decides at load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from paceline_core.checkpoint import CheckpointFacts, WeightsName

USABLE_MEMORY_SHARE: Final = 0.92
"""vLLM's default for gpu_memory_utilization (vllm/config/cache.py, 0.32). The rest is for the CUDA context
and NCCL."""

_SIZE: Final = "spec.model.kvCache.size"
_TP: Final = "spec.scaling.tensorParallelSize"
_URI: Final = "spec.model.uri"
_WEIGHTS: Final = "spec.model.quantization.weights"
_TOKENS: Final = "spec.model.maxModelTokens"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a spec cannot be served: the field at fault, and a message with the reason and the way out."""

    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What the spec asks of one replica."""

    tensor_parallel_size: int
    max_model_tokens: int
    kv_cache_bytes: int
    """of one rank"""
    kv_cache_dtype: Literal["Auto", "FP8"] = "Auto"
    weights: Literal["Auto"] | WeightsName = "Auto"
    weights_source: Literal["Auto", "Checkpoint", "Online"] = "Auto"
    rank_memory_bytes: int | None = None
    """Memory of one GPU, or a process's part of the memory limit on a CPU. None: unknown, and no memory rule
    speaks."""
    expert_parallel: bool = False
    widened: bool = False
    """The engine computes 16-bit weights in 32 bits, and holds them and its KV cache so."""
    device: Literal["cuda", "cpu"] = "cuda"

    @property
    def rank(self) -> str:
        """What a person calls one part of a replica."""
        return "GPU" if self.device == "cuda" else "process"


def refusals(facts: CheckpointFacts, setup: EngineSetup) -> tuple[Refusal, ...]:
    """All reasons why this cannot be served; empty where nothing known speaks against it."""
    gone = tuple(_gone(facts))
    if gone:
        return gone
    return (
        *_format(facts, setup),
        *_shape(facts, setup.tensor_parallel_size),
        *_groups(facts, setup),
        *_length(facts, setup),
        *_memory(facts, setup),
    )


def possible_tensor_parallel_sizes(facts: CheckpointFacts, *, up_to: int = 64) -> tuple[int, ...]:
    """The sizes that the heads and the layers of the model allow; empty where the heads are unknown."""
    if facts.attention_heads is None:
        return ()
    return tuple(size for size in range(1, up_to + 1) if not tuple(_shape(facts, size)))


def _gone(facts: CheckpointFacts) -> Iterator[Refusal]:
    """Formats that vLLM no longer loads."""
    method = facts.quantization.method if facts.quantization else None
    if facts.file_format == "gguf" or method == "gguf":
        yield Refusal(
            _URI,
            "the checkpoint is GGUF, which vLLM dropped: write the uri of the safetensors checkpoint that "
            "it was made from, and spec.model.quantization.weights for a small one",
        )
    if method == "bitsandbytes":
        yield Refusal(
            _URI,
            "the checkpoint is quantized by bitsandbytes, which vLLM dropped: write the uri of the "
            "original, with spec.model.quantization.weights: FP8, or of a compressed-tensors INT8 or INT4 "
            "checkpoint",
        )
    if facts.quantization and facts.quantization.sparse:
        yield Refusal(
            _URI,
            "the checkpoint has sparse weights, which vLLM dropped: write the uri of a dense one, quantized "
            "to FP8, INT8 or INT4 if it must be small",
        )


def _format(facts: CheckpointFacts, setup: EngineSetup) -> Iterator[Refusal]:
    """The number format of the spec against that of the checkpoint."""
    if facts.quantization is None or setup.weights == "Auto":
        return
    has, wants = facts.quantization.weights, setup.weights
    plain = facts.quantization.method == "none"
    named = "16 bit" if plain else has or facts.quantization.method
    if wants == "None" and not plain:
        yield Refusal(
            _WEIGHTS,
            f"the checkpoint is {named} and is not turned back into 16 bit: write Auto, or another uri",
        )
    elif wants == "FP8" and plain and setup.weights_source == "Checkpoint":
        yield Refusal(
            "spec.model.quantization.source",
            "the checkpoint is 16 bit, not FP8: write source: Online, or the uri of an FP8 checkpoint",
        )
    elif wants == "FP8" and not plain and (has != "FP8" or setup.weights_source == "Online"):
        yield Refusal(
            _WEIGHTS,
            f"the checkpoint is {named} already and is not quantized again: write Auto, or the uri of the "
            "original",
        )
    elif wants in ("INT8", "INT4") and has != wants:
        yield Refusal(
            _WEIGHTS,
            f"the checkpoint is {named} and {wants} is not made at load: write the uri of an {wants} "
            "checkpoint" + (", or FP8, which is" if plain else ", or Auto"),
        )


def _shape(facts: CheckpointFacts, size: int) -> Iterator[Refusal]:
    """How vLLM splits a model: attention heads and the inner layer in whole parts, KV heads in parts or
    copies."""
    heads, kv_heads, inner = facts.attention_heads, facts.kv_heads, facts.intermediate_size
    if heads is not None and heads % size:
        sizes = [n for n in range(1, heads + 1) if not heads % n and not (inner or 0) % n]
        yield Refusal(
            _TP,
            f"{size} does not divide the model's {heads} attention heads: write one of {_listed(sizes)}",
        )
        return
    if kv_heads is not None and kv_heads % size and size % kv_heads:
        yield Refusal(
            _TP,
            f"the model's {kv_heads} KV heads can be neither split over nor copied to {size}: write a "
            f"divisor or a multiple of {kv_heads} that divides the {heads} attention heads",
        )
    if inner is not None and inner % size:
        sizes = [n for n in range(1, size) if not inner % n and not (heads or 0) % n]
        yield Refusal(
            _TP,
            f"{size} does not divide the model's inner layer of {inner} columns: write one of "
            f"{_listed(sizes)}",
        )


def _groups(facts: CheckpointFacts, setup: EngineSetup) -> Iterator[Refusal]:
    """A quantization group shares one scale, so no rank may hold a part of one."""
    if facts.quantization is None:
        return
    size = setup.tensor_parallel_size
    split = [("inner layer", facts.intermediate_size)]
    if facts.attention_heads is not None and facts.head_dim is not None:
        split.append(("attention output", facts.attention_heads * facts.head_dim))
    if not setup.expert_parallel:
        split.append(("experts", facts.moe_intermediate_size))
    groups = [(group, "group") for group in facts.quantization.group_sizes]
    if facts.quantization.block is not None and size > 1:
        groups += [(edge, "block") for edge in sorted(set(facts.quantization.block))]
    for group, word in groups:
        if word == "group" and facts.hidden_size is not None and facts.hidden_size % group:
            yield Refusal(
                _URI,
                f"the checkpoint's quantization group of {group} does not divide the model's "
                f"{facts.hidden_size} columns: write the uri of one with a group of "
                f"{_largest_power_dividing(facts.hidden_size, below=group)}",
            )
        for name, columns in split:
            if columns is None or columns % size or not (columns // size) % group:
                continue
            fits = [
                n
                for n in range(1, size)
                if not columns % n and not (columns // n) % group and not tuple(_shape(facts, n))
            ]
            way_out = (
                f"write one of {_listed(fits)}"
                if fits
                else "write the uri of a checkpoint with a smaller one"
            )
            yield Refusal(
                _TP if fits else _URI,
                f"split over {size}, the {name} has {columns // size} columns, which the checkpoint's "
                f"quantization {word} of {group} does not divide: {way_out}",
            )


def _length(facts: CheckpointFacts, setup: EngineSetup) -> Iterator[Refusal]:
    if facts.max_position_tokens is not None and setup.max_model_tokens > facts.max_position_tokens:
        yield Refusal(
            _TOKENS,
            f"the model was made for {facts.max_position_tokens} tokens: write {facts.max_position_tokens} "
            "or less",
        )


def _memory(facts: CheckpointFacts, setup: EngineSetup) -> Iterator[Refusal]:
    """Weights and KV cache of one rank. Only lower bounds are held against the memory: a refusal is never a
    guess."""
    size = setup.tensor_parallel_size
    per_token = _kv_per_token(facts, setup, size)
    least_kv = None if per_token is None else per_token * setup.max_model_tokens
    if per_token is not None and least_kv is not None and least_kv > setup.kv_cache_bytes:
        yield Refusal(
            _SIZE,
            f"one request of spec.model.maxModelTokens needs {_mebi(least_kv)} of KV cache in each "
            f"{setup.rank}: write at least that, or at most {setup.kv_cache_bytes // per_token} tokens",
        )
    if facts.weights_bytes is None or setup.rank_memory_bytes is None:
        return
    usable = int(setup.rank_memory_bytes * USABLE_MEMORY_SHARE)
    weights = _loaded_bytes(facts, setup, facts.weights_bytes)
    if -(-weights // size) + (least_kv or 0) > usable:
        fitting = [
            n
            for n in possible_tensor_parallel_sizes(facts)
            if n > size
            and -(-weights // n) + (_kv_per_token(facts, setup, n) or 0) * setup.max_model_tokens <= usable
        ]
        bigger = f"write {_TP}: {fitting[0]}, " if fitting else "write "
        yield Refusal(
            _TP,
            f"{_mebi(-(-weights // size))} of weights and {_mebi(least_kv or 0)} of KV cache (one request of "
            f"spec.model.maxModelTokens) exceed the {_mebi(usable)} that a {setup.rank} of "
            f"{_mebi(setup.rank_memory_bytes)} has for them: {bigger}a smaller format in {_WEIGHTS}, or more "
            "memory",
        )
    elif -(-weights // size) + setup.kv_cache_bytes > usable:
        room = usable - -(-weights // size)
        yield Refusal(
            _SIZE,
            f"beside {_mebi(-(-weights // size))} of weights it exceeds the {_mebi(usable)} that a "
            f"{setup.rank} of {_mebi(setup.rank_memory_bytes)} has for both: write at most {room // 2**20}Mi",
        )


def _kv_per_token(facts: CheckpointFacts, setup: EngineSetup, size: int) -> int | None:
    wide = 4 if setup.widened else None
    return facts.kv_bytes_per_token(
        tensor_parallel_size=size, bytes_per_value=1 if setup.kv_cache_dtype == "FP8" else wide
    )


def _loaded_bytes(facts: CheckpointFacts, setup: EngineSetup, weights_bytes: int) -> int:
    """Least bytes after loading: what is made FP8 at load keeps at least half of its 16 bits, and what may be made FP8
    for all that is known may keep no more."""
    if setup.widened:
        return weights_bytes * 2
    online = setup.weights == "FP8" and (facts.quantization is None or facts.quantization.method == "none")
    return weights_bytes // 2 if online else weights_bytes


def _mebi(count: int) -> str:
    return f"{-(-count // 2**20)}Mi"


def _listed(sizes: list[int]) -> str:
    return ", ".join(str(size) for size in sizes)


def _largest_power_dividing(columns: int, *, below: int) -> int:
    power = 1
    while power * 2 < below and columns % (power * 2) == 0:
        power *= 2
    return power
