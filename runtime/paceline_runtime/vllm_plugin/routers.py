"""Whether any router still sends to this pod: asked of every router pod, on the gate's ops port.

A pod that leaves may refuse requests only once no router lists it. DNS names all router pods (the headless
Service publishes those that are not ready too), and each answers GET /workers with what its own router
would pick from. One that does not answer may still be sending: that is not knowing, not absence. Plain
sockets, because an HTTP client library would take half a second of a serving event loop to import.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

OPS_PORT = 9090
_ANSWER_WITHIN_S = 2.0
_MAX_ANSWER_BYTES = 1 << 20


class Routers:
    def __init__(
        self, name: str, *, port: int = OPS_PORT, resolve: Callable[[str], Awaitable[list[str]]] | None = None
    ) -> None:
        self._name = name
        self._port = port
        self._resolve = resolve or _addresses

    async def list_worker(self, address: str) -> bool | None:
        """Whether some router lists `address` (ip:port); None if one could not be asked, or none was
        found."""
        try:
            hosts = await asyncio.wait_for(self._resolve(self._name), _ANSWER_WITHIN_S)
        except (OSError, TimeoutError):
            return None
        lists = await asyncio.gather(*(self._workers(host) for host in hosts))
        if any(workers is not None and address in workers for workers in lists):
            return True
        return None if not lists or None in lists else False

    async def _workers(self, host: str) -> frozenset[str] | None:
        try:
            return await asyncio.wait_for(_get_workers(host, port=self._port), _ANSWER_WITHIN_S)
        except (OSError, TimeoutError, ValueError, KeyError, TypeError, asyncio.IncompleteReadError):
            return None


async def _addresses(name: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})


async def _get_workers(host: str, *, port: int) -> frozenset[str]:
    reader, writer = await asyncio.open_connection(host, port, limit=_MAX_ANSWER_BYTES)
    try:
        # HTTP/1.0: the answer ends with the connection, and comes in one piece.
        writer.write(f"GET /workers HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read(_MAX_ANSWER_BYTES)
        while more := await reader.read(_MAX_ANSWER_BYTES):
            body += more
    finally:
        writer.close()
    if head.split(b" ", 2)[1] != b"200":
        raise ValueError(f"{host} answered {head[:32]!r}")
    return frozenset(map(str, json.loads(body)["workers"]))
