"""Refuse a prompt that is longer than the service allows, before it costs any prefill.

vLLM itself knows one limit, the model's length over prompt and output together. The middleware asks here
first. The count is exact for text: the server's own /tokenize applies the chat template and counts, in
process. Most requests are too short in bytes to be too long in tokens and are not looked at. What an image
or a sound costs is not known before the engine has it: those pass.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

TEMPLATE_TOKENS = 1024
"""Room for what a chat template adds of its own (roles, a default system prompt): more than any known one
takes."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class PromptLimit:
    def __init__(self, max_prompt_tokens: int) -> None:
        self._max_prompt_tokens = max_prompt_tokens

    def may_exceed(self, body_bytes: int | None) -> bool:
        """Whether a request of this size has to be counted: a token is at least a byte."""
        return body_bytes is None or body_bytes + TEMPLATE_TOKENS > self._max_prompt_tokens

    async def refusal(self, app: App, scope: MutableMapping[str, Any], body: bytes) -> str | None:
        """Why this request is refused, or None. What `app` would refuse anyway is left to it."""
        longest = await _longest_prompt(app, scope, body)
        if longest is None or longest <= self._max_prompt_tokens:
            return None
        return f"the prompt has {longest} tokens and this service takes {self._max_prompt_tokens}: shorten it"


async def _longest_prompt(app: App, scope: MutableMapping[str, Any], body: bytes) -> int | None:
    try:
        request = json.loads(body)
    except ValueError:
        return None
    if not isinstance(request, dict):
        return None
    if "messages" in request:
        return await _tokenize(app, scope, request)
    prompt = request.get("prompt", request.get("input"))
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if prompts and all(isinstance(token, int) for token in prompts):
        return len(prompts)
    if any(isinstance(item, dict) for item in prompts):
        prompts = [_text_of(prompts)]  # the items of /v1/responses make one prompt
    model = request.get("model")
    counts = [
        len(one)
        if isinstance(one, list)
        else await _tokenize(app, scope, {"model": model, "prompt": _text_of(one)})
        for one in prompts
    ]
    return max((count for count in counts if count is not None), default=None)


def _text_of(prompt: object) -> str:
    """The text of a prompt, or of an input item of /v1/responses."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list):
        return "\n".join(map(_text_of, prompt))
    if isinstance(prompt, dict):
        return _text_of(prompt.get("content", prompt.get("text", "")))
    return ""


async def _tokenize(app: App, scope: MutableMapping[str, Any], request: dict[str, Any]) -> int | None:
    """Tokens of a request by the server's own count; None where it does not accept the request."""
    body = json.dumps(request).encode()
    pending: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    status = 500
    answer = bytearray()

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop()
        await asyncio.Event().wait()  # nobody disconnects: the server stops waiting when it has answered
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            answer.extend(message.get("body", b""))

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    inner = {**scope, "path": "/tokenize", "raw_path": b"/tokenize", "headers": headers, "state": {}}
    await app(inner, receive, send)
    return int(json.loads(answer)["count"]) if status == 200 else None
