"""An API server for pods alone: lists and watches over real HTTP, and fails when told to.

The edge of the tests where no kubelet is: pods appear, change and go by calls of the test. What it says is
what an API server says: resource versions, bookmarks, ERROR events, 410.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

LABELS = {"paceline.dev/service": "s", "paceline.dev/component": "engine"}


@dataclass(slots=True)
class PodApi:
    """Its state; the test changes it directly."""

    url: str = ""
    down: bool = False
    """Every request is answered 500."""
    gone: int = 0
    """So many watches are answered 410."""
    silent: bool = False
    """Watches live on and tell nothing."""
    lists: int = 0
    watches: int = 0
    _pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    _events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    _versions: itertools.count[int] = field(default_factory=lambda: itertools.count(2))
    _version: int = 1
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _watch_epoch: int = 0
    _runner: web.AppRunner | None = None

    async def start(self) -> PodApi:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self._pods_route)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                }
            )
        )
        return path

    async def put(
        self,
        name: str,
        *,
        ip: str,
        ready: bool = True,
        deleting: bool = False,
        labels: Mapping[str, str] = LABELS,
    ) -> None:
        """A pod appears, or changes."""
        kind = "MODIFIED" if name in self._pods else "ADDED"
        metadata = {"name": name, "namespace": "tenant", "uid": f"uid-{name}", "labels": {**labels}}
        if deleting:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        await self._tell(
            kind,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"containers": [{"name": "engine"}]},
                "status": {
                    "phase": "Running",
                    "podIP": ip,
                    "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                },
            },
        )

    async def delete(self, name: str, *, announced: bool = True) -> None:
        """A pod goes; unannounced, its end comes without a deletion time-stamp before it."""
        pod = self._pods[name]
        if announced:
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            await self._tell("MODIFIED", pod)
        await self._tell("DELETED", pod)

    async def end_watches(self) -> None:
        """Every running watch is cut off, as when an API server goes."""
        async with self._changed:
            self._watch_epoch += 1
            self._changed.notify_all()

    async def error_event(self) -> None:
        """Every running watch is told that its version is too old, the way etcd's compaction shows."""
        status = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}
        async with self._changed:
            self._events.append((self._version, {"type": "ERROR", "object": status}))
            self._changed.notify_all()

    async def _tell(self, kind: str, pod: dict[str, Any]) -> None:
        async with self._changed:
            self._version = next(self._versions)
            pod = json.loads(json.dumps(pod))
            pod["metadata"]["resourceVersion"] = str(self._version)
            if kind == "DELETED":
                self._pods.pop(pod["metadata"]["name"], None)
            else:
                self._pods[pod["metadata"]["name"]] = pod
            self._events.append((self._version, {"type": kind, "object": pod}))
            self._changed.notify_all()

    async def _pods_route(self, request: web.Request) -> web.StreamResponse:
        if self.down:
            return web.json_response({"kind": "Status", "code": 500, "message": "down"}, status=500)
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request)
        self.lists += 1
        items = [pod for pod in self._pods.values() if _selected(pod, request)]
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response(
            {"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        if self.gone:
            self.gone -= 1
            return web.json_response({"kind": "Status", "reason": "Expired", "code": 410}, status=410)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        after = int(request.query.get("resourceVersion") or 0)
        position = sum(1 for version, _ in self._events if version <= after)
        epoch = self._watch_epoch
        while True:
            await self._news(position, epoch=epoch)
            if self._watch_epoch != epoch:
                assert request.transport is not None
                request.transport.abort()
                return response
            for _, event in self._events[position:]:
                if event["type"] == "ERROR" or _selected(event["object"], request):
                    await response.write(json.dumps(event).encode() + b"\n")
                else:
                    version = event["object"]["metadata"]["resourceVersion"]
                    bookmark = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version}}
                    await response.write(
                        json.dumps({"type": "BOOKMARK", "object": bookmark}).encode() + b"\n"
                    )
            position = len(self._events)

    async def _news(self, position: int, *, epoch: int) -> None:
        """Wait for an event at `position`, or for the end of the watches of `epoch`."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._watch_epoch != epoch or (not self.silent and position < len(self._events))
            )


def _selected(pod: Mapping[str, Any], request: web.Request) -> bool:
    selector = request.query.get("labelSelector", "")
    wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
    labels = pod["metadata"]["labels"]
    return all(labels.get(key) == value for key, value in wanted.items())
