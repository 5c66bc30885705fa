"""A checkpoint in the shape of Llama-3.1-8B with random weights: an engine is as fast with it, and nothing is fetched.

    python benchmarks/random_weights.py OUT --tokenizer FOLDER

in an environment that has torch and safetensors. The tokenizer's files are taken from another model's folder; its vocabulary
may be smaller. 16 GB; on a GPU half a minute. Called by hand, before `paceline-runtime serve` and `paceline timing measure`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, LAYERS, INTERMEDIATE, HEADS, KV_HEADS, HEAD, VOCABULARY = 4096, 32, 14_336, 32, 8, 128, 128_256
"""Of https://huggingface.co/meta-llama/Llama-3.1-8B, config.json; so is the rest of CONFIG."""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCABULARY,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}

MATRICES = {
    "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
NORMS = ("input_layernorm", "post_attention_layernorm")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="folder of a model whose tokenizer is used"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    for file in options.tokenizer.iterdir():
        if file.name != "config.json" and file.suffix != ".safetensors":
            shutil.copy(file, options.out)
    (options.out / "config.json").write_text(json.dumps(CONFIG, indent=2))
    index: dict[str, str] = {}
    total = 0
    for number in range(LAYERS + 1):
        tensors = layer(number) if number < LAYERS else outer()
        name = f"model-{number:05d}.safetensors"
        save_file(tensors, options.out / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    weights = {"metadata": {"total_size": total}, "weight_map": index}
    (options.out / "model.safetensors.index.json").write_text(json.dumps(weights))
    print(f"{total / 1e9:.1f} GB in {options.out}")


def outer() -> dict[str, torch.Tensor]:
    return {
        "model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN, dtype=torch.bfloat16),
        "lm_head.weight": matrix(VOCABULARY, HIDDEN),
    }


def layer(number: int) -> dict[str, torch.Tensor]:
    prefix = f"model.layers.{number}"
    norms = {f"{prefix}.{name}.weight": torch.ones(HIDDEN, dtype=torch.bfloat16) for name in NORMS}
    return norms | {f"{prefix}.{name}.weight": matrix(*shape) for name, shape in MATRICES.items()}


def matrix(rows: int, columns: int) -> torch.Tensor:
    return (torch.randn(rows, columns, device=DEVICE) * 0.02).to(torch.bfloat16).cpu()


if __name__ == "__main__":
    main()
