"""A plain client of the API server for thousands of objects, and of the exporter."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.integration.control_plane import ControlPlane

Raw = dict[str, Any]
Hear = Callable[[str, Raw], None]
"""(ADDED, MODIFIED or DELETED; the object)"""

PAGE = "500"
PAUSE_S = 1.0


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:500]}")
        self.status = status


class Api:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def call(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **params: str
    ) -> Raw:
        data = json.dumps(body) if body is not None else None
        async with self._session.request(
            method, self._url + path, data=data, params=params, headers={"Content-Type": kind}
        ) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise Refused(answer.status, text)
            parsed: Raw = json.loads(text)
            return parsed

    async def patch(self, path: str, body: Raw) -> Raw:
        return await self.call("PATCH", path, body, kind="application/merge-patch+json")

    async def follow(self, path: str, hear: Hear, **params: str) -> None:
        """List and watch for ever; an object may be told of more than once. What was deleted between two
        watches is not told."""
        while True:
            try:
                await self._list_and_watch(path, hear, params)
            except (aiohttp.ClientError, Refused, TimeoutError):
                await asyncio.sleep(PAUSE_S)

    async def _list_and_watch(self, path: str, hear: Hear, params: dict[str, str]) -> None:
        more: dict[str, str] = {}
        while True:
            listed = await self.call("GET", path, limit=PAGE, **params, **more)
            for one in listed["items"]:
                hear("ADDED", one)
            if not (rest := listed["metadata"].get("continue")):
                break
            more = {"continue": rest}
        version = listed["metadata"]["resourceVersion"]
        async with self._session.get(
            self._url + path, params={"watch": "true", "resourceVersion": version, **params}
        ) as answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                hear(event["type"], event["object"])


def session(plane: ControlPlane | None = None) -> aiohttp.ClientSession:
    """Without a plane, of a plain server on loopback."""
    context = ssl.create_default_context(cafile=str(plane.ca_file)) if plane is not None else True
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        headers={"Authorization": f"Bearer {plane.token}"} if plane is not None else {},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
        # A line of a watch is a whole object.
        read_bufsize=2**22,
    )
