"""Calls to the API server: JSON in, JSON out, every one bounded in time, every write under the fence.

Used by everything in the controller except the watches, which are kopf's. It keeps no state but the connections and the
time that the answers tell. Answers that may get better (429, 5xx, no connection) are tried again for a while; all others
are errors of the tree in `errors`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any, Literal

import aiohttp

from paceline.controller.cluster_clock import ClusterClock
from paceline.controller.connection import Connection
from paceline.controller.errors import ApiError, FenceLost, Unavailable, error_of_answer
from paceline.controller.fence import Fence, FencedBody
from paceline.controller.instruments import Instruments
from paceline.controller.resources import Resource

FIELD_MANAGER = "paceline"
ATTEMPT_S = 10.0
"""For one request: an API server that has not answered by then is overloaded or gone."""

DEADLINE_S = 20.0
"""For one call with its retries."""

WRITE_AGAIN_S = 2.0
"""So long after its first attempt a write is tried again: it holds a place of the turnstile, for which other services
wait, and the work queue comes back to it with ever longer pauses."""

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Json = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class ApiClient:
    def __init__(
        self, connection: Connection, *, fence: Fence, instruments: Instruments, connections: int = 16
    ) -> None:
        self._server = connection.server
        self._session = connection.session(connections=connections)
        self._fence = fence
        self._instruments = instruments
        self.clock = ClusterClock()

    async def close(self) -> None:
        await self._session.close()

    async def get(self, resource: Resource, *, namespace: str | None, name: str) -> Json:
        return await self.call("GET", resource.path(namespace, name), resource=resource)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None,
        selector: str | None,
        metadata_only: bool = False,
        page: int = 500,
    ) -> tuple[list[Json], str]:
        """All objects and the resourceVersion of the list."""
        items: list[Json] = []
        params: dict[str, str] = {"limit": str(page)}
        if selector:
            params["labelSelector"] = selector
        while True:
            answer = await self.call(
                "GET",
                resource.path(namespace),
                resource=resource,
                verb="list",
                params=params,
                accept=METADATA_LIST if metadata_only else None,
            )
            items += answer.get("items") or []
            if not (more := answer["metadata"].get("continue")):
                return items, str(answer["metadata"].get("resourceVersion", "0"))
            params["continue"] = more

    async def apply(self, resource: Resource, body: Mapping[str, Any], *, force: bool = False) -> Json:
        """Server-side apply under our field manager. Preconditions stand in the metadata of the body."""
        meta = body["metadata"]
        return await self.call(
            "PATCH",
            resource.path(meta.get("namespace"), meta["name"]),
            resource=resource,
            verb="apply",
            body=body,
            content_type=APPLY,
            params={"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"},
        )

    async def merge(
        self,
        resource: Resource,
        patch: Mapping[str, Any],
        *,
        namespace: str | None,
        name: str,
        subresource: str | None = None,
    ) -> Json:
        """A merge patch; with `metadata.resourceVersion` in it, compare-and-swap."""
        return await self.call(
            "PATCH",
            resource.path(namespace, name, subresource),
            resource=resource,
            body=patch,
            content_type=MERGE,
            params={"fieldManager": FIELD_MANAGER},
        )

    async def create(self, resource: Resource, body: Mapping[str, Any]) -> Json:
        return await self.call(
            "POST",
            resource.path(body["metadata"].get("namespace")),
            resource=resource,
            body=body,
            params={"fieldManager": FIELD_MANAGER},
        )

    async def delete(self, resource: Resource, *, namespace: str | None, name: str, uid: str) -> Json:
        return await self.call(
            "DELETE",
            resource.path(namespace, name),
            resource=resource,
            body={"preconditions": {"uid": uid}, "propagationPolicy": "Background"},
        )

    async def call(
        self,
        method: Method,
        path: str,
        *,
        resource: Resource,
        verb: str | None = None,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str | None = None,
        fenced: bool = True,
        deadline_s: float = DEADLINE_S,
    ) -> Json:
        """`fenced=False` is for the lease itself, which is what the fence is made of."""
        writes = method != "GET"
        verb = verb or method.lower()
        what = f"{verb} {path}"
        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else None
        headers = {"Accept": accept} if accept else None
        loop = asyncio.get_running_loop()
        end_s = loop.time() + deadline_s
        last_attempt_s = loop.time() + WRITE_AGAIN_S if writes and fenced else end_s
        pause_s = RETRY_FIRST_S
        while True:
            allowed_s = min(ATTEMPT_S, end_s - loop.time())
            payload: FencedBody | bytes | None = data
            if writes and fenced:
                self._fence.check()
                allowed_s = min(allowed_s, self._fence.remaining_s)
                if data is not None:
                    payload = FencedBody(data, content_type=content_type, fence=self._fence)
            try:
                async with self._session.request(
                    method,
                    self._server + path,
                    params=params,
                    data=payload,
                    headers={**(headers or {}), "Content-Type": content_type}
                    if data is not None
                    else headers,
                    timeout=aiohttp.ClientTimeout(total=max(allowed_s, 0.05)),
                ) as answer:
                    self.clock.hear(answer.headers.get("Date"))
                    raw = await answer.read()
                    if answer.status < 300:
                        self._count(resource, verb, "ok")
                        parsed: Json = json.loads(raw)
                        return parsed
                    error: ApiError = error_of_answer(answer.status, raw, what=what, headers=answer.headers)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as broken:
                if writes and fenced:
                    self._fence.check()
                error = Unavailable(str(broken) or type(broken).__name__, status=0, what=what)
            self._count(resource, verb, type(error).__name__)
            if not isinstance(error, Unavailable):
                raise error
            wait_s = max(error.retry_after_s or 0.0, random.uniform(pause_s / 2, pause_s))
            if loop.time() + wait_s >= last_attempt_s:
                raise error
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    def _count(self, resource: Resource, verb: str, outcome: str) -> None:
        self._instruments.api_calls.labels(kind=resource.kind, verb=verb, outcome=outcome).inc()


__all__ = ["FIELD_MANAGER", "ApiClient", "FenceLost", "Json"]
