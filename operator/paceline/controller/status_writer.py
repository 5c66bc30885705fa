"""Writes the status of a service: only when it differs, always compare-and-swap.

The resourceVersion that was observed goes along, so that a plan made from an older look never overwrites a
newer one, whoever wrote it: another operator, or a person who changed the spec in the meantime. Called by
the reconciler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from paceline.api import InferenceServiceStatus
from paceline.controller.api_client import ApiClient
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.errors import NotFound, StaleWrite
from paceline.controller.instruments import Instruments
from paceline.controller.resources import INFERENCE_SERVICE
from paceline.controller.turnstile import Turnstile
from paceline.controller.work_queue import ServiceKey
from paceline.fleet.manifests import AFTER_ENGINES, ENGINES

log = structlog.get_logger()

STATUS_PRIORITY = AFTER_ENGINES + 10
"""After the children of the service: people read it later than pods start."""


class StatusWriter:
    def __init__(
        self, client: ApiClient, *, cache: ClusterCache, turnstile: Turnstile, instruments: Instruments
    ) -> None:
        self._client = client
        self._cache = cache
        self._turnstile = turnstile
        self._instruments = instruments

    async def write(
        self, key: ServiceKey, raw: Mapping[str, Any], status: InferenceServiceStatus, *, first: bool = False
    ) -> bool:
        """False where the service is not the one that was observed: nothing that follows from it may be
        done."""
        return await self.write_raw(key, raw, status.to_manifest(), first=first)

    async def write_raw(
        self, key: ServiceKey, raw: Mapping[str, Any], status: Mapping[str, Any], *, first: bool = False
    ) -> bool:
        before = raw.get("status") or {}
        patch = merge_patch(before, status)
        if not patch:
            return True
        async with self._turnstile.turn(ENGINES if first else STATUS_PRIORITY):
            try:
                live = await self._client.merge(
                    INFERENCE_SERVICE,
                    {"metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]}, "status": patch},
                    namespace=key.namespace,
                    name=key.name,
                    subresource="status",
                )
            except (StaleWrite, NotFound):
                await self._read_again(key)
                return False
        self._cache.put(INFERENCE_SERVICE, live)
        self._instruments.writes.labels(kind=INFERENCE_SERVICE.kind, verb="status").inc()
        _log_changes(key, before, status)
        return True

    async def _read_again(self, key: ServiceKey) -> None:
        """The watch may be behind; planning from the same look again would be refused again."""
        try:
            live = await self._client.get(INFERENCE_SERVICE, namespace=key.namespace, name=key.name)
        except NotFound:
            self._cache.is_gone(INFERENCE_SERVICE, key, key.name)
        else:
            self._cache.put(INFERENCE_SERVICE, live)


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch from one to the other: changed keys, and null for those that are gone."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if key in before and old == value:
            continue
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            patch[key] = merge_patch(old, value)
        else:
            patch[key] = value
    return patch


def _log_changes(key: ServiceKey, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    was = {c["type"]: c.get("status") for c in before.get("conditions") or ()}
    if not was:
        log.info("service is new", service=key.name, namespace=key.namespace)
        return
    for condition in after.get("conditions") or ():
        if was.get(condition["type"]) != condition["status"]:
            log.info(
                "condition changed",
                service=key.name,
                namespace=key.namespace,
                condition=condition["type"],
                status=condition["status"],
                reason=condition.get("reason"),
                message=condition.get("message"),
            )
    step = (after.get("transition") or {}).get("step")
    if step != (before.get("transition") or {}).get("step"):
        log.info("transition step", service=key.name, namespace=key.namespace, step=step)
