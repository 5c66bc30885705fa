"""What every pod of the cluster requests, by node: the other half of the GPU inventory. Run by `process`.

The other watches see our own pods alone. This one sees everybody's and keeps of each no more than node and
requests, so that no shape is chosen whose GPUs somebody else holds. It begins when the first service scales
by itself: a cluster where none does pays nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import structlog

from paceline.controller.api_client import ApiClient
from paceline.controller.connection import Connection
from paceline.controller.errors import ApiError
from paceline.controller.resources import POD
from paceline.fleet.inventory import requests_of

log = structlog.get_logger()

PAGE = 500
WATCH_S = 300
"""The API server ends each watch after this long; the next goes on where it ended."""

SILENCE_S = WATCH_S + 30.0
PAUSE_S = 5.0
"""After a list or watch that failed."""

Held = tuple[str, Mapping[str, float]]
"""(node, amounts)"""


class _Gone(Exception):
    """The API server no longer has the version to go on from: list again."""


class PodRequests:
    def __init__(self, client: ApiClient, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._wanted = asyncio.Event()
        self._held: dict[str, Held] = {}
        self._is_complete = False

    def by_node(self) -> dict[str, dict[str, float]] | None:
        """None as long as it is not known, or no longer is. The first question starts the watch."""
        self._wanted.set()
        if not self._is_complete:
            return None
        sums: dict[str, dict[str, float]] = {}
        for node, amounts in self._held.values():
            of_node = sums.setdefault(node, {})
            for name, amount in amounts.items():
                of_node[name] = of_node.get(name, 0.0) + amount
        return sums

    async def run(self) -> None:
        """List and watch for ever."""
        await self._wanted.wait()
        async with self._connection.session(connections=0) as session:
            while True:
                try:
                    version = await self._list()
                    while True:
                        version = await self._watch(session, version)
                except _Gone:
                    log.info("the watch of all pods begins anew")
                except (ApiError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                    self._is_complete = False
                    log.warning("requests of the cluster's pods are unknown", error=str(error) or repr(error))
                    await asyncio.sleep(PAUSE_S)

    async def _list(self) -> str:
        held: dict[str, Held] = {}
        params = {"limit": str(PAGE)}
        while True:
            answer = await self._client.call("GET", POD.path(), resource=POD, verb="list", params=params)
            for raw in answer.get("items") or ():
                _take(held, raw)
            if not (more := answer["metadata"].get("continue")):
                self._held, self._is_complete = held, True
                return str(answer["metadata"].get("resourceVersion", "0"))
            params = {"limit": str(PAGE), "continue": more}

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> str:
        params = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        async with session.get(
            self._connection.server + POD.path(),
            params=params,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_S),
        ) as answer:
            if answer.status == 410:
                raise _Gone
            answer.raise_for_status()
            async for line in _lines(answer.content):
                version = self.hear(json.loads(line)) or version
        return version

    def hear(self, event: Mapping[str, Any]) -> str | None:
        """One watch event; the version to go on from."""
        raw = event["object"]
        if event["type"] == "ERROR":
            raise _Gone
        if event["type"] == "DELETED":
            self._held.pop(raw["metadata"]["uid"], None)
        elif event["type"] != "BOOKMARK":
            _take(self._held, raw)
        version = raw["metadata"].get("resourceVersion")
        return str(version) if version is not None else None


def _take(held: dict[str, Held], raw: Mapping[str, Any]) -> None:
    node = (raw.get("spec") or {}).get("nodeName")
    ended = (raw.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if node and not ended:
        held[raw["metadata"]["uid"]] = (node, requests_of(raw))
    else:
        held.pop(raw["metadata"]["uid"], None)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Of any length: an object may be larger than the reader's own limit for a line."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
