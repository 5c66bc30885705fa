"""Fetches the metrics pages of gates and engines, past Prometheus. Used by `direct` and `gates`.

A pod that does not answer has no page; that is never an error of the caller's.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from paceline.metrics.facts import PodView
from paceline.metrics.page import values

ENGINE_PORT: Final = 8000
GATE_OPS_PORT: Final = 9090

_PAGE_LIMIT_BYTES: Final = 4 * 1024 * 1024


class PodPages:
    """Belongs to one event loop."""

    def __init__(self, *, connections: int, timeout_s: float) -> None:
        """`connections`: pods that are asked at the same time. `timeout_s`: for one page."""
        self._places = asyncio.Semaphore(connections)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def read(self, pod: PodView) -> dict[str, float] | None:
        """The series that mean something, by their text (`page.values`)."""
        if pod.ip is None:
            return None
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        port = ENGINE_PORT if pod.component == "engine" else GATE_OPS_PORT
        async with self._places:
            try:
                return values(await self._get(f"http://{host}:{port}/metrics"))
            except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError, OSError):
                return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _get(self, url: str) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
            )
        async with self._session.get(url, raise_for_status=True, allow_redirects=False) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > _PAGE_LIMIT_BYTES:
                    raise aiohttp.ClientPayloadError("the page is too large")
            return body.decode()
