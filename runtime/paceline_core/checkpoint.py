"""Facts of a checkpoint, read from its config.json and its safetensors index. Pure: the caller brings the
bytes.
 Read by the operator where it can reach the files, else by the launcher in the pod before anything is loaded;
`fit` decides with them. What the files do not tell is None: a fact is never guessed, so nothing is refused
for a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from paceline_core.uri import SMOLLM2

WeightsName = Literal["None", "FP8", "INT8", "INT4"]
FileFormat = Literal["safetensors", "gguf", "bin"]

_DTYPE_BYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}

_INTEGER_NAMES: Final[Mapping[int, WeightsName]] = {4: "INT4", 8: "INT8"}

_KV_NOT_PLAIN: Final = (
    "kv_lora_rank",
    "layers_block_type",
    "layer_block_type",
    "hybrid_override_pattern",
    "mamba_d_state",
    "ssm_state_size",
    "num_kv_shared_layers",
    "attn_layer_indices",
    "full_attention_interval",
    "attention_chunk_size",
)
"""Keys of models whose KV cache is not layers × heads × tokens (latent, recurrent, shared or chunked
layers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationFacts:
    """How the checkpoint's weights are quantized, as its config says."""

    method: str
    """As vLLM names it: compressed-tensors, gptq, awq, fp8, …; "none" for a checkpoint that is not
    quantized."""
    weights: WeightsName | None = None
    """None: a format outside of the four names."""
    group_sizes: tuple[int, ...] = ()
    """Columns that share a scale, each distinct size once. Empty: a scale for each row or for all."""
    block: tuple[int, int] | None = None
    """(rows, columns) that share a scale, in FP8 by block."""
    sparse: bool = False

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Self:
        """From `quantization_config` (or `compression_config`) of config.json."""
        method = str(config.get("quant_method") or "unknown").lower().replace("_", "-")
        if method == "compressed-tensors" or "config_groups" in config:
            return cls._compressed_tensors(method, config)
        bits = config.get("bits", config.get("w_bit", config.get("num_bits")))
        group = config.get("group_size", config.get("q_group_size"))
        block = config.get("weight_block_size")
        weights: WeightsName | None = None
        if method in ("fp8", "fbgemm-fp8"):
            weights = "FP8"
        elif method in ("gptq", "awq", "gptq-marlin", "awq-marlin", "auto-gptq", "auto-awq"):
            weights = _INTEGER_NAMES.get(bits) if isinstance(bits, int) else None
        return cls(
            method=method,
            weights=weights,
            group_sizes=(group,) if _is_positive(group) else (),
            block=_pair(block),
        )

    @classmethod
    def _compressed_tensors(cls, method: str, config: Mapping[str, Any]) -> Self:
        schemes = [
            scheme["weights"]
            for scheme in _mapping(config.get("config_groups")).values()
            if isinstance(scheme, Mapping) and isinstance(scheme.get("weights"), Mapping)
        ]
        names = {_scheme_name(scheme) for scheme in schemes}
        blocks = {_pair(scheme.get("block_structure")) for scheme in schemes} - {None}
        return cls(
            method=method,
            weights=names.pop() if len(names) == 1 else None,
            group_sizes=tuple(
                sorted({s["group_size"] for s in schemes if _is_positive(s.get("group_size"))})
            ),
            block=blocks.pop() if len(blocks) == 1 else None,
            # vLLM refuses a sparsity_config that has targets, and ignores one that has none.
            sparse=bool(_mapping(config.get("sparsity_config")).get("targets")),
        )


NOT_QUANTIZED: Final = QuantizationFacts(method="none", weights="None")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """What is known of a checkpoint. None is unknown, everywhere."""

    attention_heads: int | None = None
    kv_heads: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    moe_intermediate_size: int | None = None
    experts: int | None = None
    """Of one layer; None also where the model has none."""
    experts_per_token: int | None = None
    layers: int | None = None
    head_dim: int | None = None
    dtype: str | None = None
    vocab_size: int | None = None
    max_position_tokens: int | None = None
    """Longest sequence the model was made for; None also where a RoPE scaling stretches it."""
    quantization: QuantizationFacts | None = None
    """NOT_QUANTIZED where config.json was read and names no quantization."""
    plain_kv: bool | None = None
    """Whether the KV cache is layers × KV heads × head_dim × tokens, in full, in every layer."""
    weights_bytes: int | None = None
    file_format: FileFormat | None = None

    @classmethod
    def parse(
        cls,
        config: Mapping[str, Any] | None,
        *,
        weights_bytes: int | None = None,
        file_format: FileFormat | None = None,
    ) -> Self:
        """From config.json as read (None where it could not be) and what else is known of the files."""
        if config is None:
            return cls(weights_bytes=weights_bytes, file_format=file_format)
        text = {**config, **_mapping(config.get("text_config"))}
        heads = _first_int(text, "num_attention_heads", "n_head", "n_heads", "num_heads")
        hidden = _first_int(text, "hidden_size", "n_embd", "d_model")
        return cls(
            attention_heads=heads,
            kv_heads=_kv_heads(text, heads),
            hidden_size=hidden,
            intermediate_size=_first_int(text, "intermediate_size", "ffn_dim", "n_inner"),
            moe_intermediate_size=_first_int(text, "moe_intermediate_size"),
            experts=_first_int(text, "num_local_experts", "num_experts", "n_routed_experts"),
            experts_per_token=_first_int(text, "num_experts_per_tok", "experts_per_token", "moe_topk"),
            layers=_first_int(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
            head_dim=_head_dim(text, hidden, heads),
            dtype=_dtype(text),
            vocab_size=_first_int(text, "vocab_size"),
            max_position_tokens=_max_position(text),
            quantization=_quantization(config, text),
            plain_kv=_plain_kv(text),
            weights_bytes=weights_bytes,
            file_format=file_format,
        )

    def kv_bytes_per_token(self, *, tensor_parallel_size: int, bytes_per_value: int | None) -> int | None:
        """KV cache of one token in one rank. KV heads are split over the ranks, and copied where there are
        fewer.

        `bytes_per_value` None means that of the model.
        """
        if bytes_per_value is None:
            bytes_per_value = _DTYPE_BYTES.get(self.dtype or "")
        if not self.plain_kv or None in (self.layers, self.kv_heads, self.head_dim, bytes_per_value):
            return None
        assert self.layers is not None
        assert self.kv_heads is not None
        assert self.head_dim is not None
        assert bytes_per_value is not None
        heads_per_rank = max(1, -(-self.kv_heads // tensor_parallel_size))
        return 2 * self.layers * heads_per_rank * self.head_dim * bytes_per_value


def weights_bytes_of_index(index: Mapping[str, Any]) -> int | None:
    """From model.safetensors.index.json: the bytes of all tensors of all files."""
    size = _mapping(index.get("metadata")).get("total_size")
    return size if _is_positive(size) else None


def weights_bytes_of_header(header: Mapping[str, Any]) -> int | None:
    """From the JSON header of one .safetensors file: the bytes of its tensors."""
    ends = [
        tensor["data_offsets"][1]
        for name, tensor in header.items()
        if name != "__metadata__"
        and isinstance(tensor, Mapping)
        and _pair(tensor.get("data_offsets"), least=0)
    ]
    return max(ends) if ends else None


def file_format_of(names: Iterable[str]) -> FileFormat | None:
    """The form that vLLM would load from a folder with these files. safetensors wins where there are
    several."""
    suffixes = {name.rpartition(".")[2].lower() for name in names if "." in name}
    ranked: tuple[FileFormat, ...] = ("safetensors", "bin", "gguf")
    return next((one for one in ranked if one in suffixes), None)


BUNDLED_FACTS: Final[Mapping[str, CheckpointFacts]] = {
    SMOLLM2: CheckpointFacts(
        attention_heads=9,
        kv_heads=3,
        hidden_size=576,
        intermediate_size=1536,
        layers=30,
        head_dim=64,
        dtype="bfloat16",
        vocab_size=49152,
        max_position_tokens=8192,
        quantization=NOT_QUANTIZED,
        plain_kv=True,
        weights_bytes=269_030_016,
        file_format="safetensors",
    )
}
"""Facts of the 16-bit models inside the image, so that the operator need not ask. A test reads them again."""


def _quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> QuantizationFacts:
    for place in (config, text):
        for key in ("quantization_config", "compression_config"):
            found = place.get(key)
            if isinstance(found, Mapping) and found:
                return QuantizationFacts.parse(found)
    return NOT_QUANTIZED


def _scheme_name(scheme: Mapping[str, Any]) -> WeightsName | None:
    match scheme.get("type"), scheme.get("num_bits"):
        case "float", 8:
            return "FP8"
        case "int", 8:
            return "INT8"
        case "int", 4:
            return "INT4"
    return None


def _kv_heads(text: Mapping[str, Any], heads: int | None) -> int | None:
    """Where a config has no such key, transformers gives every attention head its own KV head."""
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        return 1
    return _first_int(text, "num_key_value_heads", "num_kv_heads", "n_head_kv") or heads


def _head_dim(text: Mapping[str, Any], hidden: int | None, heads: int | None) -> int | None:
    given = _first_int(text, "head_dim")
    if given is not None:
        return given
    return hidden // heads if hidden and heads and hidden % heads == 0 else None


def _dtype(text: Mapping[str, Any]) -> str | None:
    value = text.get("dtype", text.get("torch_dtype"))
    return value.removeprefix("torch.") if isinstance(value, str) else None


def _max_position(text: Mapping[str, Any]) -> int | None:
    rope = _mapping(text.get("rope_parameters") or text.get("rope_scaling"))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or any(isinstance(value, Mapping) for value in rope.values()):
        return None
    return _first_int(text, "max_position_embeddings", "n_positions")


def _plain_kv(text: Mapping[str, Any]) -> bool:
    if any(text.get(key) is not None for key in _KV_NOT_PLAIN):
        return False
    if text.get("sliding_window") is not None and text.get("use_sliding_window") is not False:
        return False
    kinds = text.get("layer_types")
    return not isinstance(kinds, list) or set(kinds) <= {"full_attention"}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _first_int(place: Mapping[str, Any], *keys: str) -> int | None:
    return next((place[key] for key in keys if _is_positive(place.get(key))), None)


def _pair(value: object, *, least: int = 1) -> tuple[int, int] | None:
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int) and v >= least for v in value)
    ):
        return (value[0], value[1])
    return None
