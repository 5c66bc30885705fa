"""The ASGI middleware around the whole server: each request counted once, admission, and the end of every
body.

vLLM takes it by `--middleware`, which puts it outermost; the emulated engine wraps itself in it. What it
sends on is what the server sent, byte for byte, but for these:

* a 503 of vLLM's queue limit becomes 429 with Retry-After (a 503 would open circuit breakers on the way),
* an error that would be the first event of a stream becomes the HTTP status it stands for. vLLM starts a
  stream with 200 before its last admission check, so a burst would otherwise be refused inside a
  "successful" stream. For this the headers of a stream wait for its first event,
* a prompt longer than the service takes is answered 413, and a pod that no router knows any more answers 429.

**Where the token counts come from.** vLLM's serving layer leaves the exact usage of a finished request for
middleware, in the ASGI scope: `scope["state"]["request_metadata"].final_usage_info`, set before the last
event is sent, whether the client asked for usage or not. The alternatives were worse: forcing `usage` into
streams means parsing and removing it again; the stat logger's finished-request records come by another path
(after the answer, under load) and never for an aborted request. For aborted and failed requests only the
prompt's length is needed: asked of the engine by request id at the first chunk, or when the client leaves.
Routes that leave no usage there (/v1/responses, /v1/embeddings) carry it in the last part of their body.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from paceline_core.latency import ELAPSED_HEADER
from paceline_runtime.vllm_plugin.answer import Answer, Usage
from paceline_runtime.vllm_plugin.serving import Serving, current

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROUTES = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"})
"""What the gate lets through. Other routes are neither counted nor drained."""

_ADMISSION_ERROR = "Service Unavailable"
"""The error type with which vLLM 0.32 answers when a queue limit is reached. Its other 503s have other
types."""

_FIRST_EVENT_ERROR = b'data: {"error":'
_RETRY_AFTER = (b"retry-after", b"1")

_ELAPSED = ELAPSED_HEADER.encode()
_MAX_ELAPSED_S = 86_400.0


class RequestLedger:
    """Counts the requests of `app` in `serving`: by default the process's own, as under vLLM."""

    def __init__(self, app: App, serving: Serving | None = None) -> None:
        self._app = app
        self._serving = serving or current()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self._serving
        counted = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in ROUTES
        if not counted or not serving.lifecycle.measured:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(serving, scope, receive, send)
        if not serving.lifecycle.accepts:
            await exchange.refuse(429, "this replica is leaving: send the request again")
            exchange.settle()
            return
        serving.lifecycle.arrive()
        serving.heartbeat.expect()
        try:
            refusal = await exchange.too_long(self._app)
            if refusal is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await exchange.refuse(413, refusal)
        finally:
            exchange.settle()
            serving.lifecycle.depart()


class _Exchange:
    """One request and its answer on their way through."""

    __slots__ = (
        "_answer",
        "_clock",
        "_held",
        "_prompt_tokens",
        "_read",
        "_receive",
        "_scope",
        "_send",
        "_serving",
    )

    def __init__(self, serving: Serving, scope: Scope, receive: Receive, send: Send) -> None:
        self._serving = serving
        self._clock = serving.clock
        self._scope = scope
        self._receive = receive
        self._send = send
        self._answer = Answer(started_s=serving.clock() - _elapsed_s(scope))
        self._held: Message | None = None
        """Headers that wait for what comes after them."""
        self._read: Message | None = None
        """A body that was read ahead and that the server has not had yet."""
        self._prompt_tokens: int | None = None

    async def too_long(self, app: App) -> str | None:
        """Why the prompt is refused, or None."""
        limit = self._serving.prompt_limit
        if limit is None or not limit.may_exceed(_content_length(self._scope)):
            return None
        body = bytearray()
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                return None  # gone already: the server will see that too
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self._read = {"type": "http.request", "body": bytes(body), "more_body": False}
        return await limit.refusal(app, self._scope, bytes(body))

    async def receive(self) -> Message:
        if self._read is not None:
            message, self._read = self._read, None
            return message
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._answer.whole:
            # Before the server hears of it: then the engine forgets the request.
            self._learn_prompt()
            self._answer.client_left(at_s=self._clock())
        return message

    async def send(self, message: Message) -> None:
        answer = self._answer
        if message["type"] == "http.response.body":
            if answer.whole:
                return  # the rest of a stream that was answered with a status
            body = message.get("body", b"")
            if self._held is not None:
                if await self._release(body):
                    return
            elif body:
                answer.add(body, at_s=self._clock())
            if not message.get("more_body", False):
                answer.whole = True
        elif message["type"] == "http.response.start":
            streamed = _content_type(message).startswith(b"text/event-stream")
            answer.begin(status=message["status"], streamed=streamed)
            if streamed or message["status"] == 503:
                self._held = message
                return
        await self._send(message)

    async def refuse(self, status: int, message: str) -> None:
        """Answer in place of the server."""
        kind = "TooManyRequestsError" if status == 429 else "BadRequestError"
        await self._replace(status, {"message": message, "type": kind, "param": None, "code": status})

    def settle(self) -> None:
        """Count the request. The server is through with it, in whichever way."""
        answer, ledger = self._answer, self._serving.ledger
        usage = self._usage() if answer.needs_usage else None
        prompt_tokens = usage.prompt_tokens if usage else self._prompt_tokens
        label, target = ledger.classify(prompt_tokens)
        ledger.count(label, answer.judge(target, usage=usage, prompt_tokens=prompt_tokens))

    async def _release(self, body: bytes) -> bool:
        """Send the headers that were held, now that the body begins. True if something else was answered."""
        held, self._held = self._held, None
        assert held is not None
        if body.startswith(_FIRST_EVENT_ERROR):
            error = _error_in(body.removeprefix(b"data: "))
        else:
            error = _error_in(body) if held["status"] == 503 else None
        if error is None:
            self._learn_prompt()
            await self._send(held)
            self._answer.add(body, at_s=self._clock())
            return False
        status = error["code"]
        if status == 503 and error.get("type") == _ADMISSION_ERROR:
            status = 429
            error |= {"type": "TooManyRequestsError", "code": 429}
        await self._replace(status, error)
        return True

    async def _replace(self, status: int, error: dict[str, Any]) -> None:
        body = json.dumps({"error": error}, separators=(",", ":")).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if status in (429, 503):
            headers.append(_RETRY_AFTER)
        self._answer.begin(status=status, streamed=False)
        self._answer.whole = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _learn_prompt(self) -> None:
        if self._prompt_tokens is None:
            metadata = self._scope.get("state", {}).get("request_metadata")
            if metadata is not None:
                self._prompt_tokens = self._serving.engine.prompt_tokens(metadata.request_id)

    def _usage(self) -> Usage | None:
        metadata = self._scope.get("state", {}).get("request_metadata")
        usage = getattr(metadata, "final_usage_info", None)
        if usage is not None:
            return Usage(usage.prompt_tokens, usage.completion_tokens or 0)
        return self._answer.usage_in_body()


def _content_type(message: Message) -> bytes:
    return next((bytes(value) for name, value in message.get("headers", ()) if name == b"content-type"), b"")


def _content_length(scope: Scope) -> int | None:
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() else None


def _elapsed_s(scope: Scope) -> float:
    """How long ago the request arrived at the gate; 0 for one that came by another way."""
    elapsed = _header(scope, _ELAPSED)
    return min(int(elapsed) / 1000, _MAX_ELAPSED_S) if elapsed.isdigit() and len(elapsed) < 10 else 0.0


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), b"")


def _error_in(body: bytes) -> dict[str, Any] | None:
    """The OpenAI-style error that a body holds, with its HTTP status as `code`; None for any other body."""
    try:
        error = json.loads(body)["error"]
        return dict(error) if 400 <= int(error["code"]) < 600 else None
    except (ValueError, TypeError, KeyError):
        return None
