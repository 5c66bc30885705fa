"""How far quantized copies stray from the checkpoint they were made from, on answers it would give itself.

Called by hand when the recipe changes, in the environment of requirements/quantize.txt. The original answers
chat prompts greedily; each copy then reads the same answers, and their next-token distributions are compared
token by token. The prompts are not among those of calibration.txt. It reaches no network and writes no file.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER_TOKENS = 48
PROMPTS = (
    "What is the capital of France?",
    "What is the capital of Germany?",
    "Why is the sky blue?",
    "How much is 12 plus 30?",
    "Who was Isaac Newton?",
    "Write a haiku about snow.",
    "Name three animals that live in the desert.",
    "How do I boil an egg?",
    "What is a prime number?",
    "Explain what a computer virus is.",
    "What is the largest ocean?",
    "Write a short email asking for a day off.",
    "What does a doctor do?",
    "Give me a recipe for pancakes.",
    "What is the opposite of cold?",
    "How many days are in a leap year?",
    "Tell me about the moon.",
    "Write a Python function that adds two numbers.",
    "What is photosynthesis?",
    "List the colours of the rainbow.",
    "What is the speed of light?",
    "Why do cats purr?",
    "Describe a beach at sunset.",
    "What is democracy?",
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Token ids of prompt and answer, and where the answer begins."""

    ids: Any
    answer_start: int


def load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def converse(model: Any, *, tokenizer: Any) -> list[Conversation]:
    conversations = []
    for prompt in PROMPTS:
        turn = [{"role": "user", "content": prompt}]
        encoded = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**encoded, max_new_tokens=ANSWER_TOKENS, do_sample=False)
        conversations.append(Conversation(ids=ids, answer_start=encoded["input_ids"].shape[1]))
    return conversations


def answer_logprobs(model: Any, *, conversations: list[Conversation]) -> Any:
    """Natural log-probabilities, shape (all answer tokens, vocabulary)."""
    import torch

    with torch.no_grad():
        return torch.cat(
            [
                model(each.ids).logits[0, each.answer_start - 1 : -1].float().log_softmax(-1)
                for each in conversations
            ]
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="How far quantized copies stray from their original.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the original")
    parser.add_argument("quantized", type=Path, nargs="+", help="folders of the copies")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    original = load(args.model)
    conversations = converse(original, tokenizer=AutoTokenizer.from_pretrained(args.model))
    expected = answer_logprobs(original, conversations=conversations)
    print(f"{expected.shape[0]} answer tokens of {len(PROMPTS)} prompts")
    print("| copy | mean KL divergence, nats | same first choice |\n| --- | --- | --- |")
    for folder in args.quantized:
        seen = answer_logprobs(load(folder), conversations=conversations)
        divergence = float((expected.exp() * (expected - seen)).sum(-1).mean())
        agreement = float((expected.argmax(-1) == seen.argmax(-1)).float().mean())
        print(f"| {folder.name} | {divergence:.4f} | {agreement:.1%} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
