"""The watches: kopf's streams feed the cache and say which service to look at. Called by `process`.

Only `on.event` handlers are registered. Everything else that kopf offers writes to the watched objects
(finalizers for `timer`, `daemon` and `on.delete`, progress and last-seen annotations for `on.create` and
`on.update`), and none of it is level-triggered. What kopf keeps per object for those is replaced by
storages that keep nothing: building its "essence" of every Deployment and Pod took more time than the rest
of an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from paceline.controller.cluster_cache import ClusterCache, key_of
from paceline.controller.connection import Connection
from paceline.controller.instruments import Instruments
from paceline.controller.resources import (
    CHILDREN,
    INFERENCE_SERVICE,
    NODE,
    POD,
    SERVICE_LABEL,
    Resource,
)
from paceline.controller.work_queue import ServiceKey

Wanted = Callable[[ServiceKey, bool], None]
"""(service, urgent)"""

FINALIZER = "paceline.dev/never-used"
"""kopf takes its own finalizer off objects it has no use for: one that nobody carries, lest it takes
another kopf operator's off."""

STOP_S = 3.0
"""For kopf's streams to close."""


class Watch:
    def __init__(
        self,
        connection: Connection,
        *,
        cache: ClusterCache,
        wanted: Wanted,
        instruments: Instruments,
        namespaces: Sequence[str],
        resources: Sequence[Resource],
        on_started: Callable[[], None],
    ) -> None:
        """`on_started` is called once kopf has put its own signal handlers in place, to put others there."""
        self._connection = connection
        self._cache = cache
        self._wanted = wanted
        self._instruments = instruments
        self._namespaces = tuple(namespaces)
        self._on_started = on_started
        self._resources = tuple(resources)

    async def run(self) -> None:
        """Until cancelled. Raises when a stream cannot go on."""
        # kopf logs every handled event at INFO; what it has to say above that stays.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        # Not `kopf.operator`, which at its end cancels every task of the loop that it does not know.
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=self._settings(),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            standalone=True,
        )
        self._on_started()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            raise RuntimeError("the watches ended by themselves")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_S)

    def hear(self, resource: Resource, event_type: str | None, raw: dict[str, Any]) -> None:
        """One watch event. `event_type` is None for the objects of a list."""
        self._instruments.watch_events.labels(kind=resource.kind).inc()
        if event_type == "DELETED":
            if (key := self._cache.remove_raw(resource, raw)) is not None:
                # A child that went is a service that may not serve; a pod's end is an ordinary step.
                self._wanted(key, resource in CHILDREN)
            elif resource is NODE:
                self._want_all()
            return
        key = key_of(resource, raw) if resource is not NODE else None
        # Asked before the event is taken in. A status that changed is most often our own doing.
        urgent = resource is INFERENCE_SERVICE and key is not None and self._is_asked_anew(key, raw)
        if self._cache.put(resource, raw):
            if resource is NODE:
                self._want_all()
            elif key is not None:
                self._wanted(key, urgent)

    def _is_asked_anew(self, key: ServiceKey, raw: dict[str, Any]) -> bool:
        """A new service or another spec."""
        known = self._cache.service(key)
        return known is None or any(
            known["metadata"].get(part) != raw["metadata"].get(part)
            for part in ("uid", "generation", "annotations")
        )

    def _want_all(self) -> None:
        for key in self._cache.services():
            self._wanted(key, False)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for resource in self._resources:
            kopf.on.event(
                resource.group,
                resource.version,
                resource.plural,
                registry=registry,
                id=f"hear-{resource.plural}",
            )(self._handler(resource))
        return registry

    def _handler(self, resource: Resource) -> Callable[..., Any]:
        async def hear(event: kopf.RawEvent, **_: Any) -> None:
            self.hear(resource, event["type"], event["object"])  # type: ignore[arg-type]

        return hear

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(
            server=self._connection.server, aiohttp_session=self._connection.session(connections=0)
        )

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.peering.standalone = True
        settings.persistence.finalizer = FINALIZER
        settings.persistence.diffbase_storage = _NoDiffBase()
        settings.persistence.progress_storage = _NoProgress()
        # Only these objects are ours; the API server leaves the others out of the stream.
        for resource in (*CHILDREN, POD):
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = (
                SERVICE_LABEL
            )
        # No right to read CRDs is asked for: the sweep says when PodMonitors come.
        settings.scanning.disabled = True
        settings.watching.chunk_size = 500
        settings.queueing.idle_timeout = 1.0
        settings.networking.connect_timeout = 5.0
        settings.networking.request_timeout = 30.0
        settings.networking.error_backoffs = (0.2, 0.5, 1, 1, 2, 2, 5)
        # Ending the process is not kopf's business.
        settings.process.ultimate_exiting_timeout = None
        return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """Remembers nothing: no handler of ours asks for a difference."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Remembers nothing: no handler of ours is retried."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
