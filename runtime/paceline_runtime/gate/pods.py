"""The engine pods of a service, as the API server tells them.

A list and a watch over plain aiohttp with the pod's service account: a Kubernetes client package would be the
largest thing in the router image for this one resource. The reconcile reads :meth:`PodWatch.addresses` and,
before it changes anything, :meth:`PodWatch.read`. It must not write to the API server, and when the API
server is away it keeps what it saw last: pods do not end because nobody tells of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog

log = structlog.get_logger(__name__)

WATCH_S: Final = 300
"""A watch is asked to end after this long, so that it moves to another API server now and then."""

SILENCE_S: Final = 90.0
"""A watch that says nothing for this long is dead: API servers send a bookmark about once a minute."""

BACKOFF_S: Final = (0.5, 10.0)
"""First and longest pause after an error. Longer would leave ghosts in the router after an API outage."""

HEALTHY_AFTER_S: Final = 10.0
"""A watch that lasted this long starts the pauses anew; one that ends sooner counts as a failure, also when
it ended without an error: a server that closes every watch at once must not be asked at full speed."""

LIST_TIMEOUT_S: Final = 10.0


class PodsUnreadable(Exception):
    """The API server did not answer, or refused. The message says which."""


class _Stale(Exception):
    """The resource version is too old to watch from: list again."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where the API server is, and the files that prove who we are (read at each request: they rotate)."""

    url: str
    token_path: Path | None = None
    ca_path: Path | None = None

    @classmethod
    def of_cluster(cls, environ: Mapping[str, str], *, account_dir: Path) -> ApiServer | None:
        """The API server of the cluster that this process runs in; None outside of a cluster."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port:
            return None
        host = f"[{host}]" if ":" in host else host
        return cls(
            url=f"https://{host}:{port}", token_path=account_dir / "token", ca_path=account_dir / "ca.crt"
        )

    def headers(self) -> dict[str, str]:
        if self.token_path is None:
            return {}
        return {"Authorization": f"Bearer {self.token_path.read_text().strip()}"}

    def tls(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.ca_path) if self.ca_path is not None else True


@dataclass(frozen=True, slots=True)
class Pod:
    """What the gate must know of an engine pod."""

    name: str
    ip: str | None
    ready: bool
    deleting: bool

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Pod:
        metadata, status = document["metadata"], document.get("status") or {}
        conditions = status.get("conditions") or []
        return cls(
            name=metadata["name"],
            ip=status.get("podIP"),
            ready=status.get("phase") == "Running"
            and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
            deleting=metadata.get("deletionTimestamp") is not None,
        )

    def address(self, *, port: int) -> str | None:
        """`ip:port` where the pod should be in the router's list, else None."""
        if not self.ready or self.deleting or self.ip is None:
            return None
        return f"[{self.ip}]:{port}" if ":" in self.ip else f"{self.ip}:{port}"


class PodWatch:
    """A live view of the pods of one selector. `on_change` is called after every event."""

    def __init__(
        self,
        api: ApiServer,
        *,
        namespace: str,
        selector: str,
        port: int,
        on_change: Callable[[], None],
    ) -> None:
        self._api = api
        self._url = f"{api.url}/api/v1/namespaces/{namespace}/pods"
        self._selector = selector
        self._port = port
        self._on_change = on_change
        self._pods: dict[str, Pod] | None = None
        self._resource_version: str | None = None
        self._failures = 0
        self._is_lost = False
        self._session: aiohttp.ClientSession | None = None

    def addresses(self) -> frozenset[str] | None:
        """Where the Ready, not-deleting pods answer; None until they have been listed once."""
        return None if self._pods is None else self._serving(self._pods)

    async def read(self) -> frozenset[str]:
        """The same from a list made now. Raises PodsUnreadable."""
        try:
            pods, _ = await self._list()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
            raise PodsUnreadable(f"pods of {self._selector} cannot be listed: {error!r}") from error
        return self._serving(pods)

    async def run(self) -> None:
        """Follow the pods until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            since_s = loop.time()
            try:
                await self._follow()
            except _Stale as reason:
                self._resource_version = None
                self._lost(str(reason))
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
                self._lost(repr(error))
            if loop.time() - since_s >= HEALTHY_AFTER_S:
                self._failures = 0
            else:
                self._failures += 1
                await self._pause()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _serving(self, pods: Mapping[str, Pod]) -> frozenset[str]:
        addresses = (pod.address(port=self._port) for pod in pods.values())
        return frozenset(address for address in addresses if address is not None)

    async def _follow(self) -> None:
        """List where that is needed, then watch until the watch ends."""
        if self._resource_version is None:
            self._pods, self._resource_version = await self._list()
            self._on_change()
        await self._watch()

    async def _list(self) -> tuple[dict[str, Pod], str]:
        timeout = aiohttp.ClientTimeout(total=LIST_TIMEOUT_S)
        async with self._get({}, timeout=timeout) as response:
            response.raise_for_status()
            document = await response.json(content_type=None)
        pods = {item["metadata"]["uid"]: Pod.of(item) for item in document["items"]}
        return pods, document["metadata"]["resourceVersion"]

    async def _watch(self) -> None:
        assert self._pods is not None
        assert self._resource_version is not None
        query = {
            "watch": "1",
            "resourceVersion": self._resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=LIST_TIMEOUT_S, sock_read=SILENCE_S)
        async with self._get(query, timeout=timeout) as response:
            if response.status == 410:
                raise _Stale("answered 410")
            response.raise_for_status()
            if self._is_lost:
                self._is_lost = False
                log.info("pod_watch_restored")
            async for line in _lines(response.content):
                event = json.loads(line)
                kind, item = event["type"], event["object"]
                if kind == "ERROR":
                    # Whatever the code: what was missed is unknown, so only a new list is safe.
                    raise _Stale(f"event ERROR {item.get('code')} {item.get('reason')}")
                self._resource_version = item["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    continue
                if kind == "DELETED":
                    self._pods.pop(item["metadata"]["uid"], None)
                else:
                    self._pods[item["metadata"]["uid"]] = Pod.of(item)
                self._on_change()

    def _get(
        self, query: Mapping[str, str], *, timeout: aiohttp.ClientTimeout
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session.get(
            self._url,
            params={"labelSelector": self._selector, **query},
            headers=self._api.headers(),
            ssl=self._api.tls() if self._url.startswith("https:") else True,
            timeout=timeout,
        )

    def _lost(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            log.warning("pod_watch_lost", reason=reason)

    async def _pause(self) -> None:
        first_s, longest_s = BACKOFF_S
        pause_s = min(longest_s, first_s * 2 ** min(self._failures - 1, 10))
        # The gates of one service lose their watch together; they should not come back together.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))


class StaticPods:
    """A fixed set of workers, for a gate that runs without Kubernetes."""

    def __init__(self, addresses: frozenset[str]) -> None:
        self._addresses = addresses

    def addresses(self) -> frozenset[str] | None:
        return self._addresses

    async def read(self) -> frozenset[str]:
        return self._addresses


def service_account(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the kubelet mounts the service account."""
    return Path(environ.get("PACELINE_SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: a pod may be larger than the reader's own limit for a line."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            if line.strip():
                yield line
