"""The routes of the emulated server, shaped as vLLM 0.32 shapes them, down to the order of the keys.

What Paceline's middleware relies on is kept with care: the usage of a finished request is left in the
request's state before the last event is sent, and a queue limit answers 503 with vLLM's error type.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from paceline_runtime.emulator.completion_request import BadRequest, CompletionRequest, count_prompt
from paceline_runtime.emulator.current import Current
from paceline_runtime.emulator.engine import QueueFull
from paceline_runtime.emulator.engine_request import EngineRequest
from paceline_runtime.emulator.events import Answer, RequestMetadata
from paceline_runtime.emulator.metrics import EngineMetrics
from paceline_runtime.emulator.ranks import Ranks
from paceline_runtime.vllm_plugin.probes import Probes
from paceline_runtime.vllm_plugin.serving import Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedModel:
    served_names: tuple[str, ...]
    max_model_tokens: int
    max_output_tokens: int
    prefix_hit_share: float
    emulated: Mapping[str, str]
    """What is emulated, for the model card."""


class EmulatedServer:
    def __init__(
        self,
        *,
        model: EmulatedModel,
        engine: Ranks,
        current: Current,
        serving: Serving,
        metrics: EngineMetrics,
        registry: CollectorRegistry,
    ) -> None:
        self.engine = engine
        self._model = model
        self._current = current
        self._metrics = metrics
        self._registry = registry
        self._probes = Probes(serving)
        self._created = int(time.time())
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._completion, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/health", self._health),
                Route("/metrics", self._show_metrics),
                *(
                    Route(path, endpoint)
                    for path, endpoint in (self._probes.routes | {"/ready": self._ready}).items()
                ),
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
        sequence = EngineRequest(
            request_id=metadata.request_id,
            prompt_tokens=wanted.prompt_tokens,
            output_tokens=wanted.output_tokens,
            cached_tokens=int(wanted.prompt_tokens * self._model.prefix_hit_share),
            finish_reason=wanted.finish_reason,
            arrived_s=arrived_s,
        )
        self.engine.admit(sequence)
        answer = Answer(wanted, chat=chat, metadata=metadata)
        if wanted.stream:
            return StreamingResponse(self._stream(answer, sequence), media_type="text/event-stream")
        return await self._whole(answer, sequence, request)

    async def _stream(self, answer: Answer, sequence: EngineRequest) -> AsyncIterator[bytes]:
        try:
            if answer.chat:
                # Like vLLM: the role comes with the first token, not before.
                await sequence.changed.wait()
                yield answer.role_event()
            async for places in sequence.tokens_as_they_come():
                for place in places:
                    yield answer.event(place)
            answer.finish()
            if answer.wanted.include_usage:
                yield answer.usage_event()
            yield b"data: [DONE]\n\n"
        finally:
            self.engine.abort(sequence)

    async def _whole(self, answer: Answer, sequence: EngineRequest, request: Request) -> Response:
        async def produce() -> None:
            async for _ in sequence.tokens_as_they_come():
                pass

        work = asyncio.ensure_future(produce())
        gone = asyncio.ensure_future(_client_gone(request))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = work.done()
            work.cancel()
            gone.cancel()
            self.engine.abort(sequence)
        if not finished:
            return Response(status_code=499)  # nobody reads it
        answer.finish()
        return JSONResponse(answer.whole())

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
                "emulation": dict(self._model.emulated),
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

    async def _ready(self, request: Request) -> Response:
        await self._current.while_fault("HangReadiness")
        return await self._probes.ready(request)

    async def _show_metrics(self, _: Request) -> Response:
        self.engine.show()
        self._metrics.now(kappa=self._current.kappa)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _reject(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, QueueFull)
        self._metrics.rejected(error.reason)
        message = "The engine is currently busy and cannot accept new requests."
        return _error(503, message, kind="Service Unavailable")


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
