"""Lists what the cache should hold: everything once at the start, and now and then to find what the watches
lost.

A watch that was broken for longer than the API server remembers starts over with a list, and says nothing
about the objects that are gone. The sweep compares a list of bare metadata with the cache, removes what is
not there any more, and reads what is newer. Called by `process`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

import structlog

from paceline.controller.api_client import ApiClient
from paceline.controller.cluster_cache import ClusterCache, key_of
from paceline.controller.errors import ApiError, NotFound, Rejected
from paceline.controller.resources import (
    CHILDREN,
    INFERENCE_SERVICE,
    NODE,
    POD,
    POD_MONITOR,
    SERVICE_LABEL,
    WATCHED,
    Resource,
)
from paceline.controller.watch import Wanted

log = structlog.get_logger()

FIRST_AFTER_S = 10.0
"""What was deleted between our list and the begin of kopf's watches."""

PERIOD_S = 30.0
"""Between questions whether the kind PodMonitor is there."""

ALL_EVERY = 8
"""Of these, one looks at everything."""

CRD_RETRY_S = 3.0


class Sweep:
    def __init__(
        self, client: ApiClient, *, cache: ClusterCache, wanted: Wanted, namespaces: Sequence[str]
    ) -> None:
        self._client = client
        self._cache = cache
        self._wanted = wanted
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self.pod_monitors_known = False
        """Whether the API server has the kind PodMonitor."""

        self.kinds_changed = asyncio.Event()
        """Set when `kinds` is not what it was."""

        self._nodes_allowed = True

    @property
    def kinds(self) -> tuple[Resource, ...]:
        """What can be watched here. Without the right to read nodes the fleet plans as if it knew none."""
        absent = (
            *(() if self.pod_monitors_known else (POD_MONITOR,)),
            *(() if self._nodes_allowed else (NODE,)),
        )
        return tuple(resource for resource in WATCHED if resource not in absent)

    async def prime(self) -> None:
        """Fill the cache. Returns when it is complete; waits for our CRD if it is not there yet."""
        while not await self._fill(INFERENCE_SERVICE):
            log.warning("the API server does not know InferenceService: apply crds/ or install the chart",
                        retry_s=CRD_RETRY_S)  # fmt: skip
            await asyncio.sleep(CRD_RETRY_S)
        for resource in (*CHILDREN, POD):
            if resource is not POD_MONITOR:
                await self._fill(resource)
        self.pod_monitors_known = await self._fill_if_allowed(POD_MONITOR)
        self._nodes_allowed = await self._fill_if_allowed(NODE)
        for key in self._cache.services():
            self._wanted(key, False)

    async def run(self) -> None:
        """Sweep for ever."""
        await asyncio.sleep(FIRST_AFTER_S)
        for turn in itertools.count():
            for resource in {*self.kinds, POD_MONITOR} if turn % ALL_EVERY == 0 else {POD_MONITOR}:
                try:
                    await self.sweep(resource)
                except ApiError as error:
                    log.warning("sweep failed", kind=resource.kind, error=str(error))
                await asyncio.sleep(1.0)
            await asyncio.sleep(PERIOD_S * random.uniform(0.9, 1.1))

    async def sweep(self, resource: Resource) -> None:
        """Bring the cache of one kind in line with a list of it."""
        for namespace in self._namespaces if resource.namespaced else (None,):
            try:
                listed, version = await self._client.list(
                    resource, namespace=namespace, selector=_selector(resource), metadata_only=True
                )
            except (NotFound, Rejected):
                if resource is not POD_MONITOR:
                    raise
                listed, version = [], "0"
            if resource is POD_MONITOR and self.pod_monitors_known != (version != "0"):
                self.pod_monitors_known = version != "0"
                self.kinds_changed.set()
                self._want_all()
            for name, uid in self._cache.missing_from(
                resource, listed, namespace=namespace, version=int(version)
            ):
                key = self._cache.remove(
                    resource, namespace=name[0], name=name[1], uid=uid, version=int(version)
                )
                log.warning(
                    "a deletion was not seen by the watch",
                    kind=resource.kind,
                    namespace=name[0],
                    name=name[1],
                )
                if key is not None:
                    self._wanted(key, resource in CHILDREN)
            for name in self._cache.older_than(resource, listed):
                await self._read(resource, name)

    async def _read(self, resource: Resource, name: tuple[str, str]) -> None:
        try:
            raw = await self._client.get(resource, namespace=name[0] or None, name=name[1])
        except NotFound:
            return
        if self._cache.put(resource, raw):
            if resource is NODE:
                self._want_all()
            elif (key := key_of(resource, raw)) is not None:
                self._wanted(key, False)

    async def _fill_if_allowed(self, resource: Resource) -> bool:
        """For kinds that the operator can do without."""
        try:
            return await self._fill(resource)
        except Rejected as error:
            log.warning("a kind cannot be read and is left out", kind=resource.kind, error=str(error))
            return False

    async def _fill(self, resource: Resource) -> bool:
        """False where the API server does not know the kind."""
        for namespace in self._namespaces if resource.namespaced else (None,):
            try:
                items, _ = await self._client.list(
                    resource, namespace=namespace, selector=_selector(resource)
                )
            except NotFound:
                return False
            for item in items:
                # Items of a list carry neither; answers and watch events do.
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
                self._cache.put(resource, item)
        return True

    def _want_all(self) -> None:
        for key in self._cache.services():
            self._wanted(key, False)


def _selector(resource: Resource) -> str | None:
    return None if resource in (INFERENCE_SERVICE, NODE) else SERVICE_LABEL
