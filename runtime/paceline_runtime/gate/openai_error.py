"""Errors in the form that OpenAI clients understand.

The proxy answers with these where it has no answer of an engine to pass on. It must not carry addresses of
pods or texts of internal errors: what a tenant may know is what to do next.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from aiohttp import web

RETRY_AFTER_S: Final = 1
"""Sent with every 429 and 503 that carries no Retry-After of its own: engines free a place in about a step."""

_HOLD_SHARE: Final = 0.1
"""Of the longest hold, the time after which one that found no place, or no engine, may try again: who may be
held for minutes waits for a start, and one second would have every client ask hundreds of times."""

_LONGEST_RETRY_S: Final = 30
"""Clients of OpenAI's own library do as they are told up to a minute, and try twice."""


@dataclass(frozen=True, slots=True)
class OpenAIError:
    """One error: the HTTP status and what stands in the body."""

    status: int
    type: str
    code: str
    message: str
    retry_after_s: int = RETRY_AFTER_S

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return json.dumps({"error": error}, separators=(",", ":")).encode()

    def response(self) -> web.Response:
        headers = {"Retry-After": str(self.retry_after_s)} if self.status in (429, 503) else {}
        return web.Response(
            status=self.status, body=self.body(), content_type="application/json", headers=headers
        )

    def event(self) -> bytes:
        """The error as a server-sent event, for a stream that has begun with status 200.

        It starts with a blank line, which ends an event that the engine may have left half written.
        """
        return b"\n\ndata: " + self.body() + b"\n\n"


NOT_FOUND: Final = OpenAIError(
    status=404,
    type="invalid_request_error",
    code="not_found",
    message="This service answers GET /v1/models and POST /v1/chat/completions, /v1/completions, "
    "/v1/embeddings and /v1/responses.",
)
UNAUTHORIZED: Final = OpenAIError(
    status=401,
    type="authentication_error",
    code="invalid_api_key",
    message="Send a valid API key in the header 'Authorization: Bearer KEY'.",
)
BODY_TOO_LATE: Final = OpenAIError(
    status=408,
    type="invalid_request_error",
    code="request_timeout",
    message="The request body did not arrive in time.",
)
ENGINE_LOST: Final = OpenAIError(
    status=502,
    type="server_error",
    code="engine_lost",
    message="The connection to the engine was lost before it answered, more than once.",
)
STREAM_LOST: Final = OpenAIError(
    status=502,
    type="server_error",
    code="engine_lost",
    message="The connection to the engine was lost in the middle of the answer.",
)


def hold_full(max_hold_s: float) -> OpenAIError:
    return OpenAIError(
        status=429,
        type="rate_limit_error",
        code="hold_full",
        message="No engine is ready and the places to wait for one are taken. Try again.",
        retry_after_s=_retry_after_s(max_hold_s),
    )


def no_engine(max_hold_s: float) -> OpenAIError:
    return OpenAIError(
        status=503,
        type="service_unavailable",
        code="no_engine",
        message="No engine became ready while the request was held. Try again.",
        retry_after_s=_retry_after_s(max_hold_s),
    )


def _retry_after_s(max_hold_s: float) -> int:
    return max(RETRY_AFTER_S, min(round(max_hold_s * _HOLD_SHARE), _LONGEST_RETRY_S))


def body_too_large(limit_bytes: int) -> OpenAIError:
    return OpenAIError(
        status=413,
        type="invalid_request_error",
        code="request_too_large",
        message=f"The request body is larger than {limit_bytes} bytes.",
    )


def too_slow(limit_s: float) -> OpenAIError:
    return OpenAIError(
        status=504,
        type="server_error",
        code="max_request_seconds",
        message=f"The request ran longer than the {limit_s:g} s that this service allows.",
    )


def passed_on(status: int, *, message: str) -> OpenAIError:
    """The OpenAI form of an error that came as plain text, from the router or from under an engine."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return OpenAIError(status=status, type=kind, code=str(status), message=message)
