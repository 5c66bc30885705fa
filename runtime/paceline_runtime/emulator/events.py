"""The events of one answer, as vLLM 0.32 writes them, down to the order of the keys."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from paceline_runtime.emulator import text
from paceline_runtime.emulator.completion_request import CompletionRequest


@dataclass(slots=True)
class FinalUsage:
    """Where vLLM's own serving layer has a UsageInfo."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class RequestMetadata:
    request_id: str
    final_usage_info: FinalUsage | None = None


class Answer:
    """The events of one answer."""

    def __init__(self, wanted: CompletionRequest, *, chat: bool, metadata: RequestMetadata) -> None:
        self.wanted = wanted
        self.chat = chat
        self._metadata = metadata
        self._created = int(time.time())

    def role_event(self) -> bytes:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._event([choice], sent=0)

    def event(self, place: int) -> bytes:
        last = place == self.wanted.output_tokens - 1
        word = text.token(place)
        choice = {
            "index": 0,
            **({"delta": {"content": word}} if self.chat else {"text": word}),
            "logprobs": None,
            "finish_reason": self.wanted.finish_reason if last else None,
        }
        return self._event([choice], sent=place + 1)

    def usage_event(self) -> bytes:
        return _sse(self._head(chunk=True) | {"choices": [], "usage": self._usage(self.wanted.output_tokens)})

    def finish(self) -> None:
        wanted = self.wanted
        self._metadata.final_usage_info = FinalUsage(wanted.prompt_tokens, wanted.output_tokens)

    def whole(self) -> dict[str, Any]:
        wanted = self.wanted
        answer = "".join(map(text.token, range(wanted.output_tokens)))
        said = {"message": {"role": "assistant", "content": answer}} if self.chat else {"text": answer}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": wanted.finish_reason}
        return self._head(chunk=False) | {"choices": [choice], "usage": self._usage(wanted.output_tokens)}

    def _event(self, choices: list[dict[str, Any]], *, sent: int) -> bytes:
        body = self._head(chunk=True) | {"choices": choices}
        if self.wanted.continuous_usage:
            body["usage"] = self._usage(sent)
        return _sse(body)

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {
            "id": self._metadata.request_id,
            "object": kind,
            "created": self._created,
            "model": self.wanted.model,
        }

    def _usage(self, output_tokens: int) -> dict[str, int]:
        prompt_tokens = self.wanted.prompt_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + output_tokens,
            "completion_tokens": output_tokens,
        }


def _sse(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
