"""Instant queries over Prometheus' HTTP API: authentication, time-outs, tries again, and what a failure means.

Used by `source`. It knows nothing of what is asked. An answer is rows of labels and a number; everything that
is not a whole answer (an error, a warning that parts are missing) is an exception, so that nobody takes half
of an answer for a small number.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import aiohttp

from paceline.metrics.errors import MetricsError, QueryFailed, Unreachable
from paceline.metrics.settings import PrometheusSettings

_QUERY_PATH: Final = "/api/v1/query"
_MAY_PASS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MESSAGE_CHARACTERS: Final = 300
_ANNOTATIONS: Final = ("PromQL info:", "PromQL warning:")
"""Remarks on a query. Any other warning says that the answer is not whole (Thanos without a store)."""


class Row(NamedTuple):
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    rows: list[Row]
    skew_s: float
    """Prometheus' clock minus ours, the time that the answer took left out: what remains is a real difference.
    0 where Prometheus did not say its time."""


class Prometheus:
    """One endpoint. Belongs to one event loop."""

    def __init__(self, settings: PrometheusSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._url = settings.url.rstrip("/") + _QUERY_PATH
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._tls_made_of: tuple[int, ...] = ()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def query(self, promql: str) -> Answer:
        """Raises MetricsError. Tries again what may pass by itself."""
        settings = self._settings
        attempt = 1
        while True:
            try:
                return await self._ask(promql)
            except Unreachable as error:
                if attempt >= settings.attempts:
                    raise
                pause_s = settings.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                await asyncio.sleep(max(pause_s, min(error.retry_after_s or 0.0, settings.timeout_s)))
                attempt += 1

    async def _ask(self, promql: str) -> Answer:
        settings = self._settings
        asked_at_s = self._clock()
        try:
            async with (
                asyncio.timeout(settings.timeout_s),
                self._open().post(
                    self._url,
                    data={"query": promql},
                    headers=self._headers(),
                    ssl=self._tls_context(),
                    allow_redirects=False,
                ) as response,
            ):
                body = await self._body(response)
        except TimeoutError:
            raise Unreachable(f"{settings.url} did not answer within {settings.timeout_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise QueryFailed(
                f"{settings.url}: its certificate is not trusted ({error.certificate_error}): set the CA file"
            ) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Unreachable(f"{settings.url}: {_words(error)}") from error
        except (OSError, ssl.SSLError) as error:
            raise QueryFailed(f"{settings.url}: {_words(error)}") from error
        return _read(
            body,
            status=response.status,
            url=settings.url,
            headers=response.headers,
            between_s=(asked_at_s, self._clock()),
        )

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._settings.answer_limit_bytes:
                raise QueryFailed(
                    f"{self._settings.url}: an answer of more than {self._settings.answer_limit_bytes} bytes"
                )
        return bytes(body)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Deadlines are this class's own; the session must not have another.
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=True,
                headers={"User-Agent": "paceline-operator", **self._settings.headers},
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        path = self._settings.bearer_token_file
        if path is None:
            return {}
        try:
            return {"Authorization": f"Bearer {path.read_text().strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            raise QueryFailed(f"the bearer token cannot be read: {_words(error)}") from error

    def _tls_context(self) -> ssl.SSLContext | bool:
        """Made anew when a file changes: certificates are renewed while the operator runs."""
        settings = self._settings
        files = [one for one in (settings.ca_file, settings.certificate_file, settings.key_file) if one]
        if not files:
            return True
        made_of = tuple(one.stat().st_mtime_ns for one in files)
        if self._tls is None or made_of != self._tls_made_of:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.certificate_file is not None:
                context.load_cert_chain(settings.certificate_file, settings.key_file)
            self._tls, self._tls_made_of = context, made_of
        return self._tls


def _read(
    body: bytes, *, status: int, url: str, headers: Mapping[str, str], between_s: tuple[float, float]
) -> Answer:
    if status != 200:
        raise _refusal(body, status=status, url=url, headers=headers)
    answer = _object(body, url=url)
    if answer.get("status") != "success":
        raise QueryFailed(f"{url}: {str(answer.get('error'))[:_MESSAGE_CHARACTERS]}")
    warnings = [str(one) for one in answer.get("warnings") or () if not str(one).startswith(_ANNOTATIONS)]
    if warnings:
        raise QueryFailed(f"{url}: the answer is not whole: {warnings[0][:_MESSAGE_CHARACTERS]}")
    try:
        data = answer["data"]
        if data["resultType"] != "vector":
            raise QueryFailed(f"{url}: a {data['resultType']} where a vector was asked for")
        result = data["result"]
        rows = [Row(one["metric"], float(one["value"][1])) for one in result]
        said_s = float(result[0]["value"][0]) if result else _date_s(headers)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise QueryFailed(f"{url}: not an answer of Prometheus ({_words(error)})") from error
    return Answer(rows=rows, skew_s=_skew_s(said_s, between_s))


def _refusal(body: bytes, *, status: int, url: str, headers: Mapping[str, str]) -> MetricsError:
    said = f"{url}{_QUERY_PATH} answered {status}: {_error_in(body)}"
    if status in _MAY_PASS:
        return Unreachable(said, retry_after_s=_seconds(headers.get("Retry-After")))
    if status in (401, 403):
        return QueryFailed(f"{said}. Check the bearer token or the client certificate")
    if status == 404 or 300 <= status < 400:
        return QueryFailed(f"{said}. Check the URL: /api/v1/query is asked below it")
    return QueryFailed(said)


def _error_in(body: bytes) -> str:
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:_MESSAGE_CHARACTERS] or "no reason given"


def _object(body: bytes, *, url: str) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise QueryFailed(f"{url}: not an answer of Prometheus (not JSON)") from error
    if not isinstance(answer, dict):
        raise QueryFailed(f"{url}: not an answer of Prometheus (not an object)")
    return answer


def _skew_s(said_s: float | None, between_s: tuple[float, float]) -> float:
    if said_s is None:
        return 0.0
    before_s, after_s = between_s
    if said_s < before_s:
        return said_s - before_s
    return max(said_s - after_s, 0.0)


def _date_s(headers: Mapping[str, str]) -> float | None:
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
