"""The INT8 W8A8 copy of the bundled model: made once, then served as a variant.

Called by hand or by the build, in the environment of requirements/quantize.txt (llmcompressor pins
other versions of transformers and compressed-tensors than vLLM does, so neither the runtime nor the
operator may import this file). It reads a bf16 checkpoint folder and writes a folder in the
compressed-tensors format, which vLLM recognises by itself. It reaches no network, and it calibrates
only on calibration.txt beside it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CALIBRATION = Path(__file__).with_name("calibration.txt")
SEED = 20261
MAX_SAMPLE_TOKENS = 512
SMOOTHING_STRENGTH = 0.8
"""How far outliers move from the activations into the weights. Of 0.5 and 0.8, both seen on chat answers
that are not in the calibration set, 0.8 stays closer to bf16 (docs/quantization.md)."""
LEFT_IN_BF16 = ("lm_head", r"re:.*layers\.(11|28|29)\.mlp\.down_proj")
"""lm_head is tied to the input embedding: quantizing it would untie the two and make the checkpoint larger.
The three down projections carry SmolLM2's massive activations: one value in a token is so large that an
8-bit scale for the whole token leaves the others nothing. GPTQ's error there was 5 to 30 times that of
the next layer; they are 2 % of the weights."""


class QuantizationError(Exception):
    """A request that cannot be carried out; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Turn:
    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A passage (`text`) or a conversation (`turns`); exactly one of them is filled."""

    text: str
    turns: tuple[Turn, ...]


def parse_sample(block: str) -> Sample:
    """A block that opens with `user: ` is a conversation; a line that opens with a role starts a turn.

    Everything else is a passage, taken as it stands.
    """
    if not block.startswith("user: "):
        return Sample(text=block, turns=())
    turns: list[Turn] = []
    for line in block.splitlines():
        role, colon, rest = line.partition(": ")
        if colon and role == "user":
            turns.append(Turn("user", rest))
        elif colon and role == "assistant":
            turns.append(Turn("assistant", rest))
        else:
            turns[-1] = Turn(turns[-1].role, f"{turns[-1].content}\n{line}")
    return Sample(text="", turns=tuple(turns))


def read_samples(path: Path) -> list[Sample]:
    """The samples of `path`, in an order that depends on SEED alone."""
    blocks = [block.strip() for block in path.read_text(encoding="utf-8").split("\n---\n")]
    samples = [parse_sample(block) for block in blocks if block]
    random.Random(SEED).shuffle(samples)
    return samples


def render(sample: Sample, *, tokenizer: Any) -> str:
    if not sample.turns:
        return sample.text
    messages = [{"role": turn.role, "content": turn.content} for turn in sample.turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def quantize(model_dir: Path, *, out_dir: Path) -> None:
    """Write the INT8 copy of `model_dir` to `out_dir`, whole or not at all.

    Raises QuantizationError before anything is loaded if `model_dir` is no checkpoint.
    """
    if not (model_dir / "config.json").is_file():
        raise QuantizationError(f"--model {model_dir}: no config.json there; name a checkpoint folder")
    # Importing llmcompressor takes ten seconds: not before the arguments have been checked.
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    samples = read_samples(CALIBRATION)
    tokenized = [
        # The chat template writes its own special tokens.
        tokenizer(
            render(sample, tokenizer=tokenizer),
            add_special_tokens=False,
            truncation=True,
            max_length=MAX_SAMPLE_TOKENS,
        )
        for sample in samples
    ]
    tokens = sum(len(sample["input_ids"]) for sample in tokenized)
    print(f"calibrating on {len(samples)} samples, {tokens} tokens", flush=True)
    oneshot(
        model=model,
        dataset=Dataset.from_list([dict(sample) for sample in tokenized]),
        recipe=[
            SmoothQuantModifier(smoothing_strength=SMOOTHING_STRENGTH),
            GPTQModifier(scheme="W8A8", targets="Linear", ignore=list(LEFT_IN_BF16)),
        ],
        num_calibration_samples=len(samples),
        max_seq_length=MAX_SAMPLE_TOKENS,
        shuffle_calibration_samples=False,
    )
    # A reader that sees the folder may rely on it: it appears under its name only when it is complete.
    partial = out_dir.with_name(out_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, save_compressed=True)
    tokenizer.save_pretrained(partial)
    for path in partial.iterdir():
        path.chmod(0o644)  # the image's user reads what the builder's user wrote
    partial.rename(out_dir)


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the INT8 W8A8 copy of the bundled model.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the bf16 checkpoint")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write; left alone if it is complete"
    )
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if (args.out / "config.json").is_file():
        print(f"{args.out} is there already; delete it to make it anew")
        return 0
    started_s = time.monotonic()
    try:
        quantize(args.model, out_dir=args.out)
    except QuantizationError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{args.out}: {size_bytes(args.out) / 1e6:.0f} MB from {size_bytes(args.model) / 1e6:.0f} MB,"
        f" {time.monotonic() - started_s:.0f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
