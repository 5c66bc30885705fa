"""Carries out one action of a plan on one child, or finds that there is nothing to do.

Called by the reconciler, in the order of the plan. Server-side apply under one field manager, forced only
where the plan says so; deletes with a UID precondition. What the API server answers goes into the cache at
once, so that the next plan does not wait for the watch to tell of our own work.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum, auto

import structlog

from paceline.api import InferenceServiceStatus
from paceline.controller.api_client import ApiClient
from paceline.controller.cluster_cache import ClusterCache, key_of
from paceline.controller.conflict_book import Attempt, ConflictBook
from paceline.controller.errors import FieldConflict, NotFound, StaleWrite
from paceline.controller.instruments import Instruments
from paceline.controller.resources import CHILD_OF_KIND, DELETABLE_OF_KIND, POD, Resource
from paceline.controller.sameness import ANNOTATION_APPLIED, content_digest_of, digest_of, holds, is_applied
from paceline.controller.turnstile import Turnstile
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Apply, ChildKey, Delete, Reshape
from paceline.fleet.manifests import ENGINES

log = structlog.get_logger()

AS_GOOD_KEPT = 10_000
"""Objects of which that is remembered. A forgotten one costs an apply that changes nothing."""


class Outcome(Enum):
    SAME = auto()
    """Nothing was written: the child is as wanted."""

    WROTE = auto()
    HELD = auto()
    """Other managers hold fields of it, as the plan knew."""

    LEARNED = auto()
    """Other managers hold fields of it, and the plan does not know yet: it stands in the conflict book
    now."""

    LOOK_AGAIN = auto()
    """The cluster is not as it was observed: what follows from that observation must not be done."""


class Writer:
    def __init__(
        self,
        client: ApiClient,
        *,
        cache: ClusterCache,
        conflicts: ConflictBook,
        turnstile: Turnstile,
        instruments: Instruments,
    ) -> None:
        self._client = client
        self._cache = cache
        self._conflicts = conflicts
        self._turnstile = turnstile
        self._instruments = instruments
        self._as_good: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """uid -> digests of an object that we applied and of what the API server made of it, where the two
        differ only in form (a quantity in other units)."""

    async def apply(
        self, key: ServiceKey, action: Apply, *, status: InferenceServiceStatus | None
    ) -> Outcome:
        resource = CHILD_OF_KIND[action.kind]
        child: ChildKey = (action.kind, action.name)
        digest = digest_of(action.object)
        if self._is_same(key, child, action, digest=digest):
            self._conflicts.clear(key, child)
            return Outcome.SAME
        attempt = Attempt(uid=action.uid or "", resource_version=self._version(key, child), digest=digest)
        if not action.force and self._conflicts.is_refused(key, child, attempt):
            return Outcome.HELD
        async with self._turnstile.turn(action.priority):
            if self._moved_on(key, child, action):
                return Outcome.LOOK_AGAIN
            if action.must_be_absent and not await self._is_absent(key, resource, action.name):
                return Outcome.LOOK_AGAIN
            return await self._apply(key, child, resource, action, attempt=attempt, status=status)

    async def reshape(self, key: ServiceKey, action: Reshape) -> Outcome:
        async with self._turnstile.turn(ENGINES):
            try:
                live = await self._client.merge(POD, action.body(), namespace=key.namespace, name=action.name)
            except (NotFound, StaleWrite):
                return Outcome.LOOK_AGAIN
        if key_of(POD, live) == key:
            self._cache.put(POD, live)
        self._wrote(key, POD, action.name, verb="reshape")
        return Outcome.WROTE

    async def delete(self, key: ServiceKey, action: Delete, *, priority: int) -> Outcome:
        resource = DELETABLE_OF_KIND[action.kind]
        async with self._turnstile.turn(priority):
            try:
                answer = await self._client.delete(
                    resource, namespace=key.namespace, name=action.name, uid=action.uid
                )
            except (NotFound, StaleWrite):
                await self._is_absent(key, resource, action.name)
                return Outcome.LOOK_AGAIN
        if answer.get("kind") == POD.kind and key_of(POD, answer) == key:
            # It is still there, and drains.
            self._cache.put(POD, answer)
        self._wrote(key, resource, action.name, verb="delete")
        return Outcome.WROTE

    async def _apply(
        self,
        key: ServiceKey,
        child: ChildKey,
        resource: Resource,
        action: Apply,
        *,
        attempt: Attempt,
        status: InferenceServiceStatus | None,
    ) -> Outcome:
        body = action.body()
        body["metadata"].setdefault("annotations", {})
        body["metadata"]["annotations"] = {
            **body["metadata"]["annotations"],
            ANNOTATION_APPLIED: attempt.digest,
        }
        try:
            live = await self._client.apply(resource, body, force=action.force)
        except FieldConflict as conflict:
            return self._held(key, child, conflict, attempt=attempt, status=status)
        except StaleWrite as stale:
            log.info(
                "child changed under an apply", service=key.name, namespace=key.namespace, error=str(stale)
            )
            await self._is_absent(key, resource, action.name)
            return Outcome.LOOK_AGAIN
        self._conflicts.clear(key, child)
        if holds(live, action.object):
            self._as_good.pop(live["metadata"]["uid"], None)
        else:
            self._as_good[live["metadata"]["uid"]] = (attempt.digest, content_digest_of(live))
            while len(self._as_good) > AS_GOOD_KEPT:
                self._as_good.popitem(last=False)
        if key_of(resource, live) == key:
            self._cache.put(resource, live)
        self._wrote(key, resource, action.name, verb="force-apply" if action.force else "apply")
        return Outcome.WROTE

    def _is_same(self, key: ServiceKey, child: ChildKey, action: Apply, *, digest: str) -> bool:
        live = self._cache.children(key).get(child)
        if live is None or live["metadata"]["uid"] != action.uid or not is_applied(live, digest=digest):
            return False
        if holds(live, action.object):
            return True
        as_good = self._as_good.get(live["metadata"]["uid"])
        return as_good is not None and as_good == (digest, content_digest_of(live))

    def _moved_on(self, key: ServiceKey, child: ChildKey, action: Apply) -> bool:
        """The wait for a turn may have been long: the service or the child is another one by now."""
        service = self._cache.service(key)
        if service is None or service["metadata"].get("deletionTimestamp"):
            return True
        live = self._cache.children(key).get(child)
        return (live["metadata"]["uid"] if live is not None else None) != action.uid

    def _version(self, key: ServiceKey, child: ChildKey) -> str:
        live = self._cache.children(key).get(child)
        return str(live["metadata"]["resourceVersion"]) if live is not None else ""

    async def _is_absent(self, key: ServiceKey, resource: Resource, name: str) -> bool:
        """As the API server knows it now. The cache learns it too: the watch may be behind, or tell of no
        such object."""
        try:
            found = await self._client.get(resource, namespace=key.namespace, name=name)
        except NotFound:
            self._cache.is_gone(resource, key, name)
            return True
        if key_of(resource, found) == key:
            self._cache.put(resource, found)
        else:
            self._cache.put_unlabelled(key, resource, found)
        return False

    def _held(
        self,
        key: ServiceKey,
        child: ChildKey,
        conflict: FieldConflict,
        *,
        attempt: Attempt,
        status: InferenceServiceStatus | None,
    ) -> Outcome:
        for one in conflict.foreign:
            self._instruments.conflicts.labels(kind=child[0], manager=one.manager).inc()
        if not self._conflicts.record(
            key,
            child,
            foreign=conflict.foreign,
            attempt=attempt,
            now_s=self._client.clock.now_s(),
            status=status,
        ):
            return Outcome.HELD
        log.warning(
            "fields are held by another manager",
            service=key.name,
            namespace=key.namespace,
            child=f"{child[0]}/{child[1]}",
            foreign=[f"{one.manager}: {', '.join(one.fields)}" for one in conflict.foreign],
        )
        return Outcome.LEARNED

    def _wrote(self, key: ServiceKey, resource: Resource, name: str, *, verb: str) -> None:
        self._instruments.writes.labels(kind=resource.kind, verb=verb).inc()
        log.info("wrote", verb=verb, kind=resource.kind, name=name, namespace=key.namespace, service=key.name)
