"""The routes of the emulated server, shaped as vLLM 0.32 shapes them, down to the order of the keys.

What Paceline's middleware relies on is kept with care: the usage of a finished request is left in the
request's state before the last event is sent, and a queue limit answers 503 with vLLM's error type.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from paceline_runtime.emulator import text
from paceline_runtime.emulator.completion_request import BadRequest, CompletionRequest, count_prompt
from paceline_runtime.emulator.engine import Engine, Limits, QueueFull
from paceline_runtime.emulator.engine import Sequence as EngineSequence
from paceline_runtime.emulator.metrics import EngineMetrics
from paceline_runtime.vllm_plugin.exposition import PacelineCollector
from paceline_runtime.vllm_plugin.probes import Probes
from paceline_runtime.vllm_plugin.serving import Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedModel:
    served_names: tuple[str, ...]
    max_model_tokens: int
    max_output_tokens: int


@dataclass(slots=True)
class FinalUsage:
    """Where vLLM's own serving layer has a UsageInfo."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class RequestMetadata:
    request_id: str
    final_usage_info: FinalUsage | None = None


class EmulatedServer:
    def __init__(
        self,
        *,
        model: EmulatedModel,
        limits: Limits,
        serving: Serving,
        buckets: Mapping[str, Sequence[float]],
    ) -> None:
        self._model = model
        self._registry = CollectorRegistry()
        self._kv_cache_tokens = limits.max_sequences * model.max_model_tokens
        self._metrics = EngineMetrics(
            model=model.served_names[0],
            buckets=buckets,
            kv_cache_tokens=self._kv_cache_tokens,
            registry=self._registry,
        )
        self._registry.register(PacelineCollector(serving))
        self._heartbeat = serving.heartbeat
        self.engine = Engine(limits, on_step=self._stepped)
        serving.engine = self.engine
        self._created = int(time.time())
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._completion, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/health", self._health),
                Route("/metrics", self._show_metrics),
                *(Route(path, endpoint) for path, endpoint in Probes(serving).routes.items()),
            ],
            exception_handlers={BadRequest: _refuse, QueueFull: self._reject},
        )

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def _completion(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        arrived_s = time.monotonic()
        wanted = CompletionRequest.parse(
            await _json(request),
            chat=chat,
            served_names=self._model.served_names,
            max_model_tokens=self._model.max_model_tokens,
            max_output_tokens=self._model.max_output_tokens,
        )
        metadata = RequestMetadata(f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex[:16]}")
        request.state.request_metadata = metadata
        sequence = EngineSequence(
            request_id=metadata.request_id,
            prompt_tokens=wanted.prompt_tokens,
            output_tokens=wanted.output_tokens,
            arrived_s=arrived_s,
        )
        self.engine.admit(sequence)
        run = _Run(wanted, chat=chat, metadata=metadata)
        if wanted.stream:
            return StreamingResponse(self._stream(run, sequence), media_type="text/event-stream")
        return await self._whole(run, sequence, request)

    async def _stream(self, run: _Run, sequence: EngineSequence) -> AsyncIterator[bytes]:
        try:
            if run.chat:
                # Like vLLM: the role comes with the first token, not before.
                await _first_token(sequence)
                yield run.role_event()
            async for places in self._tokens(sequence):
                for place in places:
                    yield run.event(place)
            run.finish()
            if run.wanted.include_usage:
                yield run.usage_event()
            yield b"data: [DONE]\n\n"
        finally:
            self._forget(sequence, run)

    async def _whole(self, run: _Run, sequence: EngineSequence, request: Request) -> Response:
        async def produce() -> None:
            async for _ in self._tokens(sequence):
                pass

        work = asyncio.ensure_future(produce())
        gone = asyncio.ensure_future(_client_gone(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = work.done()
            work.cancel()
            gone.cancel()
            self._forget(sequence, run)
        if not finished:
            return Response(status_code=499)  # nobody reads it
        run.finish()
        return JSONResponse(run.whole())

    async def _tokens(self, sequence: EngineSequence) -> AsyncIterator[range]:
        metrics = self._metrics
        last_s = sequence.arrived_s
        async for places in self.engine.tokens(sequence):
            now_s = time.monotonic()
            if places.start == 0:
                metrics.prompt_tokens.inc(sequence.prompt_tokens)
                metrics.time_to_first_token.observe(now_s - sequence.arrived_s)
            else:
                metrics.inter_token_latency.observe(now_s - last_s)
            last_s = now_s
            yield places

    def _forget(self, sequence: EngineSequence, run: _Run) -> None:
        metrics = self._metrics
        self.engine.abort(sequence)
        if not sequence.finished:
            metrics.success["abort"].inc()
            return
        now_s = time.monotonic()
        metrics.success[run.wanted.finish_reason].inc()
        metrics.end_to_end.observe(now_s - sequence.arrived_s)
        metrics.prompt_length.observe(sequence.prompt_tokens)
        metrics.output_length.observe(sequence.output_tokens)
        if sequence.output_tokens > 1 and sequence.first_token_s is not None:
            metrics.time_per_output_token.observe(
                (now_s - sequence.first_token_s) / (sequence.output_tokens - 1)
            )

    def _stepped(self, produced: int) -> None:
        self._heartbeat.beat()
        self._metrics.generation_tokens.inc(produced)

    async def _models(self, _: Request) -> Response:
        cards = [
            {
                "id": name,
                "object": "model",
                "created": self._created,
                "owned_by": "paceline-emulator",
                "root": name,
                "parent": None,
                "max_model_len": self._model.max_model_tokens,
                "emulated": True,
            }
            for name in self._model.served_names
        ]
        return JSONResponse({"object": "list", "data": cards})

    async def _tokenize(self, request: Request) -> Response:
        body = await _json(request)
        if not isinstance(body, Mapping):
            raise BadRequest("the body must be a JSON object")
        tokens = count_prompt(body, chat="messages" in body)
        return JSONResponse({"count": tokens, "max_model_len": self._model.max_model_tokens})

    async def _health(self, _: Request) -> Response:
        return Response()

    async def _show_metrics(self, _: Request) -> Response:
        metrics, engine = self._metrics, self.engine
        metrics.running.set(engine.running)
        metrics.waiting.set(engine.waiting)
        metrics.kv_cache_usage.set(engine.held_tokens / self._kv_cache_tokens)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _reject(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, QueueFull)
        self._metrics.rejections[error.reason].inc()
        message = "The engine is currently busy and cannot accept new requests."
        return _error(503, message, kind="Service Unavailable")


class _Run:
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


async def _first_token(sequence: EngineSequence) -> None:
    await sequence.changed.wait()


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        raise BadRequest("the body is not JSON") from None


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return _error(
        error.status, str(error), kind="NotFoundError" if error.status == 404 else "BadRequestError"
    )


def _error(status: int, message: str, *, kind: str) -> Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return JSONResponse(body, status_code=status)
