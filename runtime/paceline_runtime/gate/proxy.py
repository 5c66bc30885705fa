"""One request through the gate: admitted, held where no engine is, sent on, and its answer passed through.

The bytes of an answer are written as they come; only the first chunk of a stream is noticed, for the time to
first token. A request may be sent again as long as its client has seen nothing of an answer, and only when
the connection, not an engine, was what failed:

    the router refuses the connection          it restarts: hold, then send
    the router has no worker                   hold, then send
    a connection ended without an answer       take dead workers from the router's list, send again, at most
                                               RESENDS times: a request that kills engines must not kill all
    an engine answered, with whatever status   pass it on; 429 and 503 are the engine's own word

A client that is held for long and asked for a stream is given comments meanwhile (`early_stream`). It must not
decode bodies, buffer answers, or choose engines.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from paceline_core import CLIENT_ERROR_STATUS, ELAPSED_HEADER
from paceline_runtime.gate import allowlist, openai_error
from paceline_runtime.gate.drain import Drain
from paceline_runtime.gate.early_stream import EarlyStream
from paceline_runtime.gate.hold import Hold, HoldExpired, HoldFull
from paceline_runtime.gate.keys import Keys
from paceline_runtime.gate.metrics import CutReason, Metrics, UnservedReason
from paceline_runtime.gate.openai_error import OpenAIError
from paceline_runtime.gate.workers import Reconcile

log = structlog.get_logger(__name__)

RESENDS: Final = 2

CLIENT_LEFT: Final = 499

TEXT_ERROR_BYTES: Final = 64 * 1024
"""How much is read of an error that is plain text. The router's are one line."""

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_NOT_SENT_ON: Final = _HOP_BY_HOP | {"host", "content-length", "expect", "authorization", ELAPSED_HEADER}
"""The key ends here: engines and their logs have no use for it. And no client sets its own clock."""

_NOT_PASSED_BACK: Final = _HOP_BY_HOP | {
    # The router lets every web page read every answer. That is not the router's to allow.
    "access-control-allow-origin",
    "access-control-expose-headers",
}

_NO_WORKER_TEXTS: Final = (b"No available workers", b"No workers are currently available")
_SEND_FAILED_TEXTS: Final = (b"Request failed:", b"Failed to get response body:", b"Failed to read response:")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take."""

    max_hold_s: float
    max_request_s: float
    keep_alive_s: float
    """A held stream gets a comment this often. The shortest time-out in common use between a client and a gate is
    30 s (a load balancer's default for a whole answer), the commonest 60 s of silence."""

    max_body_bytes: int = 32 * 1024 * 1024


class _Refused(Exception):
    """The request ends with an error of the gate's own; `unserved` where no engine counts it, `begun` where its
    client has been given a stream already."""

    def __init__(self, error: OpenAIError, *, unserved: UnservedReason | None = None) -> None:
        super().__init__(error.code)
        self.error = error
        self.unserved = unserved
        self.begun: web.StreamResponse | None = None


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A request as it is sent to the router, as often as it is sent."""

    route: allowlist.Route
    headers: CIMultiDict[str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """The head of an answer, and its first chunk where that had to be read to know what the answer is."""

    upstream: aiohttp.ClientResponse
    first: bytes | None

    @property
    def is_stream(self) -> bool:
        return self.upstream.status == 200 and self.upstream.content_type == "text/event-stream"


@dataclass(frozen=True, slots=True)
class _TextError:
    """An error in plain text: the router's own, or from under an engine's server. Engines answer in JSON."""

    status: int
    text: bytes

    @property
    def message(self) -> str:
        return self.text.decode("utf-8", "replace").strip() or f"HTTP status {self.status}"

    def no_worker(self) -> bool:
        """Whether the router says that it has nowhere to send the request."""
        return self.status == 503 and self.text.startswith(_NO_WORKER_TEXTS)

    def send_failed(self) -> bool:
        """Whether the router says that its connection to a worker failed."""
        return self.status == 500 and self.text.startswith(_SEND_FAILED_TEXTS)


class Proxy:
    """The handler of the public port."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        router_url: str,
        limits: Limits,
        keys: Keys,
        hold: Hold,
        reconcile: Reconcile,
        drain: Drain,
        metrics: Metrics,
    ) -> None:
        self._session = session
        self._urls = {route: URL(router_url + route.path, encoded=True) for route in allowlist.ROUTES}
        self._limits = limits
        self._keys = keys
        self._hold = hold
        self._reconcile = reconcile
        self._drain = drain
        self._metrics = metrics

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        arrived_s = _now_s()
        status = 500
        arrival = False
        self._metrics.in_flight.inc()
        try:
            try:
                route = self._admit(request)
                if arrival := route.method == "POST":
                    self._metrics.arrivals.inc()
                response, status = await self._answer(request, route, arrived_s=arrived_s)
            except _Refused as refused:
                if arrival and refused.unserved is not None:
                    self._metrics.unserved.labels(refused.unserved).inc()
                status = refused.error.status
                if (begun := refused.begun) is not None:
                    await begun.write(refused.error.event())
                    await begun.write_eof()
                    return begun
                response = refused.error.response()
                self._leave(response)
            return response
        except (asyncio.CancelledError, ConnectionError):
            status = CLIENT_LEFT
            raise
        finally:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(str(status)).inc()
            if arrival and status in CLIENT_ERROR_STATUS:
                self._metrics.client_errors.inc()

    def _admit(self, request: web.BaseRequest) -> allowlist.Route:
        route = allowlist.match(request.method, target=request.raw_path)
        if route is None:
            raise _Refused(openai_error.NOT_FOUND)
        if not self._keys.admits(request.headers.get("Authorization")):
            raise _Refused(openai_error.UNAUTHORIZED)
        return route

    async def _answer(
        self, request: web.BaseRequest, route: allowlist.Route, *, arrived_s: float
    ) -> tuple[web.StreamResponse, int]:
        """And the status that the request counts with: a stream that was begun while it was held says 200,
        whatever came of it."""
        body = await self._body(request)
        outgoing = _Outgoing(route=route, headers=_sent_on(request.headers), body=body)
        early = EarlyStream(request, body=body, every_s=self._limits.keep_alive_s, before_head=self._leave)
        try:
            answer, until_s = await self._reach(outgoing, early, arrived_s=arrived_s)
        except _Refused as refused:
            await early.stop()
            refused.begun = early.begun
            raise
        finally:
            await early.stop()
        async with answer.upstream:
            response = await self._pass_through(
                request, answer, begun=early.begun, arrived_s=arrived_s, until_s=until_s
            )
        return response, answer.upstream.status

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit = self._limits.max_body_bytes
        if (request.content_length or 0) > limit:
            raise _Refused(openai_error.body_too_large(limit))
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.max_request_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise _Refused(openai_error.body_too_large(limit))
        except TimeoutError:
            raise _Refused(openai_error.BODY_TOO_LATE, unserved="body_too_late") from None
        return bytes(body)

    async def _reach(
        self, outgoing: _Outgoing, early: EarlyStream, *, arrived_s: float
    ) -> tuple[_Answer, float]:
        """Send until there is an answer to pass on, or until that is no longer allowed.

        The time that comes with the answer is when the request has run for as long as it may: that
        counts from its first sending, and all that is sent again falls within it.
        """
        hold_until_s = arrived_s + self._limits.max_hold_s
        until_s = math.inf
        was_held = False
        resends = 0
        while True:
            if not self._hold.is_open:
                early.start()
            try:
                was_held |= await self._hold.pass_through(deadline_s=hold_until_s, was_held=was_held)
            except HoldFull:
                raise _Refused(
                    openai_error.hold_full(self._limits.max_hold_s), unserved="hold_full"
                ) from None
            except HoldExpired:
                raise _Refused(
                    openai_error.no_engine(self._limits.max_hold_s), unserved="no_engine"
                ) from None
            until_s = min(until_s, _now_s() + self._limits.max_request_s)
            try:
                answer = await self._send(outgoing, elapsed_s=_now_s() - arrived_s, until_s=until_s)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                self._hold.shut()
                continue
            except TimeoutError:
                raise _Refused(openai_error.too_slow(self._limits.max_request_s)) from None
            except (aiohttp.ClientError, ConnectionError):
                answer = None
            if isinstance(answer, _TextError) and answer.no_worker():
                self._hold.shut()
                continue
            if isinstance(answer, _Answer):
                return answer, until_s
            if answer is not None and not answer.send_failed():
                raise _Refused(
                    openai_error.passed_on(answer.status, message=answer.message),
                    unserved=None if answer.status in CLIENT_ERROR_STATUS else "router_error",
                )
            if resends == RESENDS:
                raise _Refused(openai_error.ENGINE_LOST, unserved="engine_lost")
            resends += 1
            self._metrics.resent.inc()
            log.warning("request_resent", route=outgoing.route.path, resends=resends)
            await self._reconcile.evict_dead()

    async def _send(self, outgoing: _Outgoing, *, elapsed_s: float, until_s: float) -> _Answer | _TextError:
        """One try. Raises aiohttp.ClientError where the connection failed before the answer began."""
        headers = outgoing.headers.copy()
        headers[ELAPSED_HEADER] = str(round(elapsed_s * 1000))
        async with asyncio.timeout_at(until_s):
            upstream = await self._session.request(
                outgoing.route.method,
                self._urls[outgoing.route],
                headers=headers,
                data=outgoing.body or None,
                allow_redirects=False,
            )
            if upstream.status < 400:
                return _Answer(upstream, first=None)
            try:
                first = await upstream.content.readany()
                # The content type would not tell: for a streamed request the router calls every answer
                # an event stream.
                if first.lstrip()[:1] == b"{":
                    return _Answer(upstream, first=first)
                text = bytearray(first)
                while len(text) < TEXT_ERROR_BYTES and (chunk := await upstream.content.readany()):
                    text += chunk
            except BaseException:
                upstream.close()
                raise
            upstream.release()
            return _TextError(upstream.status, bytes(text))

    async def _pass_through(
        self,
        request: web.BaseRequest,
        answer: _Answer,
        *,
        begun: web.StreamResponse | None,
        arrived_s: float,
        until_s: float,
    ) -> web.StreamResponse:
        response = begun if begun is not None else self._begin(answer)
        await response.prepare(request)
        try:
            async with asyncio.timeout_at(until_s):
                if begun is not None and not answer.is_stream:
                    await response.write(await _as_event(answer))
                    await response.write_eof()
                    return response
                if answer.first is not None:
                    await response.write(answer.first)
                elif answer.is_stream and (first := await _next(answer.upstream)):
                    self._metrics.observe_ttft(_now_s() - arrived_s)
                    await response.write(first)
                while chunk := await _next(answer.upstream):
                    await response.write(chunk)
                await response.write_eof()
        except TimeoutError:
            error = openai_error.too_slow(self._limits.max_request_s)
            await self._cut(request, response, error, answer=answer, reason="max_request_seconds")
        except _EngineLost:
            error = openai_error.STREAM_LOST
            await self._cut(request, response, error, answer=answer, reason="engine_lost")
        return response

    def _begin(self, answer: _Answer) -> web.StreamResponse:
        upstream = answer.upstream
        headers = CIMultiDict(
            (name, value) for name, value in upstream.headers.items() if name.lower() not in _NOT_PASSED_BACK
        )
        if upstream.status >= 400:
            headers["Content-Type"] = "application/json"
            if upstream.status in (429, 503):
                headers.setdefault("Retry-After", str(openai_error.RETRY_AFTER_S))
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
        self._leave(response)
        return response

    def _leave(self, response: web.StreamResponse) -> None:
        if self._drain.draining:
            response.force_close()

    async def _cut(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        error: OpenAIError,
        *,
        answer: _Answer,
        reason: CutReason,
    ) -> None:
        """End an answer that has begun so that its client cannot take it for a whole one."""
        if reason == "engine_lost":
            # The count that the engine kept died with it.
            self._metrics.unserved.labels("engine_lost").inc()
        self._metrics.cut.labels(reason).inc()
        log.warning("answer_cut", reason=reason)
        if response.status == 200 and response.content_type == "text/event-stream":
            await response.write(error.event())
            await response.write_eof()
        elif request.transport is not None:
            request.transport.abort()


class _EngineLost(Exception):
    """The answer ended before it was whole."""


async def _next(upstream: aiohttp.ClientResponse) -> bytes:
    """The next bytes of the answer as they came, empty at its end.

    What fails here is the engine's side: errors of the client's side come from writing.
    """
    try:
        return await upstream.content.readany()
    except (aiohttp.ClientError, ConnectionError) as error:
        raise _EngineLost(repr(error)) from error


async def _as_event(answer: _Answer) -> bytes:
    """An answer in one piece, in a stream that was begun before it came: an engine's error, most likely."""
    body = bytearray(answer.first or b"")
    while chunk := await _next(answer.upstream):
        body += chunk
    try:
        return b"data: " + json.dumps(json.loads(body), separators=(",", ":")).encode() + b"\n\n"
    except ValueError:
        message = f"HTTP status {answer.upstream.status}"
        return openai_error.passed_on(answer.upstream.status, message=message).event()


def _sent_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    dropped = _NOT_SENT_ON | named
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
