"""The canned answer and the rough tokenizer of the emulated engine. Pure; the same request gets the same
answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_ANSWER = (
    "This answer comes from the emulated engine of Paceline: "
    "no model computed it, only its pace is meant to be real."
)
_WORDS = _ANSWER.split(" ")

NATURAL_TOKENS = 64
"""Where an answer ends by itself, as a model's end-of-sequence token would end it."""

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


def token(index: int) -> str:
    """Text of the token at this place of an answer: one word."""
    word = _WORDS[index % len(_WORDS)]
    return word if index == 0 else f" {word}"


def count(text: str) -> int:
    """Tokens of a text: four bytes each, rounded up. Near enough to a real tokenizer on English."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def count_messages(messages: Iterable[Mapping[str, object]]) -> int:
    """Tokens of a chat, with some for the marks around each message."""
    return sum(_TOKENS_PER_MESSAGE + count(_text_of(message.get("content"))) for message in messages)


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""
