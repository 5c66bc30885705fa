"""Posts Kubernetes events on services, the same one once with a count, never in the way of a reconcile.

The reconciler hands events over and goes on; one task posts them, last of all callers of the API server. An
event is named after its content, so a restarted operator counts on instead of posting a second one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from paceline.controller.api_client import ApiClient
from paceline.controller.errors import AlreadyExists, ApiError, NotFound
from paceline.controller.instruments import Instruments
from paceline.controller.resources import EVENT, INFERENCE_SERVICE
from paceline.controller.status_writer import STATUS_PRIORITY
from paceline.controller.turnstile import Turnstile
from paceline.fleet import Event
from paceline.fleet.timestamps import rfc3339

log = structlog.get_logger()

BACKLOG = 1000
EVENT_PRIORITY = STATUS_PRIORITY + 10
COMPONENT = "paceline-operator"
MESSAGE_LIMIT = 1024
"""The API server refuses a longer message."""


@dataclass(frozen=True, slots=True)
class _Post:
    namespace: str
    name: str
    uid: str
    resource_version: str
    event: Event
    at: str


class EventRecorder:
    def __init__(
        self, client: ApiClient, *, turnstile: Turnstile, instruments: Instruments, instance: str
    ) -> None:
        self._client = client
        self._turnstile = turnstile
        self._instruments = instruments
        self._instance = instance
        self._backlog: asyncio.Queue[_Post] = asyncio.Queue(maxsize=BACKLOG)

    def post(self, service: Mapping[str, Any], event: Event) -> None:
        meta = service["metadata"]
        now = rfc3339(self._client.clock.now_s())
        post = _Post(meta["namespace"], meta["name"], meta["uid"], meta["resourceVersion"], event, now)
        log.info(
            "event",
            service=meta["name"],
            namespace=meta["namespace"],
            type=event.type,
            reason=event.reason,
            message=event.message,
        )
        try:
            self._backlog.put_nowait(post)
        except asyncio.QueueFull:
            self._dropped(post, "the backlog of events is full")

    async def run(self) -> None:
        """Post for ever."""
        while True:
            post = await self._backlog.get()
            try:
                async with self._turnstile.turn(EVENT_PRIORITY):
                    await self._send(post)
            except ApiError as error:
                self._dropped(post, str(error))

    async def _send(self, post: _Post) -> None:
        body = self._body(post)
        try:
            await self._client.create(EVENT, body)
        except AlreadyExists:
            await self._count_on(post, name=body["metadata"]["name"])

    async def _count_on(self, post: _Post, *, name: str) -> None:
        """Two patches and no read: the answer to the first has the count."""
        try:
            known = await self._client.merge(
                EVENT, {"lastTimestamp": post.at}, namespace=post.namespace, name=name
            )
            count = int(known.get("count") or 1) + 1
            await self._client.merge(EVENT, {"count": count}, namespace=post.namespace, name=name)
        except NotFound:
            # It expired between the two calls.
            await self._client.create(EVENT, self._body(post))

    def _body(self, post: _Post) -> dict[str, Any]:
        event = post.event
        content = "\0".join((post.uid, event.type, event.reason, event.message))
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "name": f"{post.name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}",
                "namespace": post.namespace,
            },
            "involvedObject": {
                "apiVersion": INFERENCE_SERVICE.api_version,
                "kind": INFERENCE_SERVICE.kind,
                "namespace": post.namespace,
                "name": post.name,
                "uid": post.uid,
                "resourceVersion": post.resource_version,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:MESSAGE_LIMIT],
            "firstTimestamp": post.at,
            "lastTimestamp": post.at,
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }

    def _dropped(self, post: _Post, why: str) -> None:
        self._instruments.events_dropped.inc()
        log.warning(
            "event was not posted",
            service=post.name,
            namespace=post.namespace,
            reason=post.event.reason,
            error=why,
        )
