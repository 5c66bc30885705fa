"""A request body of the OpenAI routes, as far as the emulated engine heeds it. Refuses what it could not
honour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paceline_runtime.emulator import text


class BadRequest(Exception):
    """A request that is refused by its own fault: the HTTP status and a message that names the field."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    model: str
    prompt_tokens: int
    output_tokens: int
    """How many the answer will have."""
    finish_reason: str
    stream: bool
    include_usage: bool
    continuous_usage: bool

    @classmethod
    def parse(
        cls,
        body: Any,
        *,
        chat: bool,
        served_names: tuple[str, ...],
        max_model_tokens: int,
        max_output_tokens: int,
    ) -> CompletionRequest:
        if not isinstance(body, Mapping):
            raise BadRequest("the body must be a JSON object")
        model = body.get("model") or served_names[0]
        if model not in served_names:
            raise BadRequest(
                f"The model `{model}` does not exist. Served: {', '.join(served_names)}.", status=404
            )
        prompt_tokens = count_prompt(body, chat=chat)
        if prompt_tokens >= max_model_tokens:
            raise BadRequest(
                f"the prompt has {prompt_tokens} tokens; with at least one to answer the model takes "
                f"{max_model_tokens}"
            )
        if body.get("n", 1) not in (1, None):
            raise BadRequest("n: the emulated engine gives one choice: write 1")
        wanted = _positive(body, "max_completion_tokens", _positive(body, "max_tokens", None))
        room = min(max_output_tokens, max_model_tokens - prompt_tokens, wanted or max_output_tokens)
        natural = max(text.NATURAL_TOKENS, _positive(body, "min_tokens", 1) or 1)
        ends_itself = not body.get("ignore_eos") and natural <= room
        options = body.get("stream_options") or {}
        return cls(
            model=model,
            prompt_tokens=prompt_tokens,
            output_tokens=natural if ends_itself else room,
            finish_reason="stop" if ends_itself else "length",
            stream=bool(body.get("stream")),
            include_usage=bool(options.get("include_usage")),
            continuous_usage=bool(options.get("continuous_usage_stats")),
        )


def count_prompt(body: Mapping[str, Any], *, chat: bool) -> int:
    if chat:
        messages = body.get("messages")
        if (
            not isinstance(messages, list)
            or not all(isinstance(one, Mapping) for one in messages)
            or not messages
        ):
            raise BadRequest("messages: write a list of at least one message")
        return text.count_messages(messages)
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return max(1, text.count(prompt))
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return len(prompt)
    raise BadRequest("prompt: write a text or a list of token ids (the emulated engine takes one prompt)")


def _positive(body: Mapping[str, Any], key: str, default: int | None) -> int | None:
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadRequest(f"{key}: write a whole number of at least 1")
    return value
