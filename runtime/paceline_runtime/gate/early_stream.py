"""What a client that waits is given, so that nothing between it and the gate cuts its connection.

A request that asks for a stream gets status 200 and a comment when it has waited for a while, and another
comment every so often until its answer begins. Clients skip comments; proxies that cut silent connections see
bytes. Until the first comment every status is still possible, so it comes as late as the shortest of the usual
time-outs lets it. After it, an error can only be an event of the stream. Used by the proxy, one for each request;
it must not give a byte to a request that did not ask for a stream: there a first byte is the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

from aiohttp import web

COMMENT: Final = b": waiting for an engine\n\n"

_HEADERS: Final = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


class EarlyStream:
    """The stream of one request, begun before there is an answer, or never."""

    def __init__(
        self,
        request: web.BaseRequest,
        *,
        body: bytes,
        every_s: float,
        before_head: Callable[[web.StreamResponse], None],
    ) -> None:
        """`every_s`: before the first comment, and between two. `before_head` may change the response before
        its head is sent."""
        self._request = request
        self._body = body
        self._every_s = every_s
        self._before_head = before_head
        self._comments: asyncio.Task[None] | None = None
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> web.StreamResponse | None:
        """The stream, once its client has seen a byte of it."""
        return self._response

    def start(self) -> None:
        """Comment from now on; a second call changes nothing."""
        if self._comments is None:
            self._comments = asyncio.create_task(self._comment())

    async def stop(self) -> None:
        """No comment comes after this."""
        if self._comments is not None:
            self._comments.cancel()
            await asyncio.gather(self._comments, return_exceptions=True)

    async def _comment(self) -> None:
        await asyncio.sleep(self._every_s)
        if not asks_for_stream(self._body):
            return
        response = web.StreamResponse(headers=_HEADERS)
        self._before_head(response)
        await response.prepare(self._request)
        self._response = response
        while True:
            await response.write(COMMENT)
            await asyncio.sleep(self._every_s)


def asks_for_stream(body: bytes) -> bool:
    """Whether the body of a request says `"stream": true`. False for what cannot be read: an engine will say
    what is wrong with it."""
    if b'"stream"' not in body:
        return False
    try:
        read = json.loads(body)
    except ValueError:
        return False
    return isinstance(read, dict) and read.get("stream") is True
