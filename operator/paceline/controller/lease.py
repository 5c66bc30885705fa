"""One leader: a Lease (coordination.k8s.io) that is acquired before work starts, renewed, and released at
the end.

`process` calls `acquire`, then runs `keep` beside everything else. The lease extends the `Fence`, which
every write asks. Times, on monotonic clocks of each side, with duration D:

    renewal sent at t ──────── fence holds until t + 2/3 D ─── margin for writes on their way ─── t' + D
    others take it
                                                                                  (t' >= t: when they saw
                                                                                  the renewal)

The library's own election is not used: it goes by wall clock and does not say, at any moment, whether it
still leads.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from paceline.controller.api_client import ApiClient, Json
from paceline.controller.errors import AlreadyExists, ApiError, FenceLost, NotFound, StaleWrite
from paceline.controller.fence import Fence
from paceline.controller.resources import LEASE

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    namespace: str
    identity: str
    name: str = "paceline-operator"
    duration_s: int = 15

    @property
    def fence_s(self) -> float:
        """How long after a renewal was sent we still write."""
        return self.duration_s * 2 / 3

    @property
    def period_s(self) -> float:
        """Between renewals: several fit into the fence, so that one lost answer costs nothing."""
        return self.duration_s / 6

    @property
    def retry_s(self) -> float:
        """After a renewal that failed: an API server that refuses three of ten must not cost the lease."""
        return self.period_s / 5


class Lease:
    def __init__(self, client: ApiClient, *, settings: LeaseSettings, fence: Fence) -> None:
        self._client = client
        self._settings = settings
        self._fence = fence
        self._seen: tuple[str, float] | None = None
        """The resourceVersion of somebody else's lease, and when we first saw it (monotonic)."""

    async def acquire(self) -> None:
        """Return once the lease is ours. Waits for as long as another one holds it."""
        waiting_for: str | None = None
        while True:
            try:
                if (holder := await self._try_acquire()) is None:
                    log.info("lease acquired", lease=self._settings.name, identity=self._settings.identity)
                    return
                if holder != waiting_for:
                    log.info("lease is held by another", lease=self._settings.name, holder=holder)
                    waiting_for = holder
            except ApiError as error:
                log.warning("lease cannot be read or written", error=str(error))
            await asyncio.sleep(self._settings.period_s * random.uniform(0.8, 1.2))

    async def keep(self) -> None:
        """Renew for ever; raises FenceLost when the lease is lost or could not be renewed in time."""
        pause_s = self._settings.period_s
        while True:
            await asyncio.sleep(pause_s)
            self._fence.check()
            try:
                await self._renew()
                pause_s = self._settings.period_s
            except FenceLost:
                raise
            except ApiError as error:
                pause_s = self._settings.retry_s
                log.warning(
                    "lease was not renewed", error=str(error), remaining_s=round(self._fence.remaining_s, 1)
                )

    async def release(self) -> None:
        """Let the next one in at once. Writes stop before."""
        if self._fence.remaining_s <= 0:
            return
        self._fence.drop()
        try:
            lease = await self._read()
            if lease["spec"].get("holderIdentity") == self._settings.identity:
                await self._write(lease, self._spec(holder="", transitions=_transitions(lease), duration_s=1))
                log.info("lease released", lease=self._settings.name)
        except ApiError as error:
            log.warning("lease was not released; the next one waits until it expires", error=str(error))

    async def _try_acquire(self) -> str | None:
        """None if it is ours now, else who holds it."""
        sent_s = self._fence.now_s
        try:
            lease = await self._read()
        except NotFound:
            try:
                await self._create(self._spec(holder=self._settings.identity, transitions=0, acquired=True))
            except AlreadyExists:
                return "another"
            self._fence.extend(sent_s + self._settings.fence_s)
            return None
        holder = str(lease["spec"].get("holderIdentity") or "")
        if holder and holder != self._settings.identity and not self._expired(lease):
            return holder
        spec = self._spec(holder=self._settings.identity, transitions=_transitions(lease) + 1, acquired=True)
        sent_s = self._fence.now_s
        try:
            await self._write(lease, spec)
        except StaleWrite:
            return "another"
        self._fence.extend(sent_s + self._settings.fence_s)
        return None

    async def _renew(self) -> None:
        sent_s = self._fence.now_s
        lease = await self._read()
        if lease["spec"].get("holderIdentity") != self._settings.identity:
            self._fence.drop()
            raise FenceLost(f"the lease is held by {lease['spec'].get('holderIdentity')!r} now")
        spec = {**lease["spec"], "renewTime": _micro_time()}
        await self._write(lease, spec)
        self._fence.extend(sent_s + self._settings.fence_s)

    def _expired(self, lease: Json) -> bool:
        """Not renewed for its duration while we were looking: clocks of different machines are never
        compared."""
        version = lease["metadata"]["resourceVersion"]
        now_s = time.monotonic()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now_s)
        return now_s - self._seen[1] > float(lease["spec"].get("leaseDurationSeconds") or 0)

    async def _read(self) -> Json:
        return await self._client.call(
            "GET",
            LEASE.path(self._settings.namespace, self._settings.name),
            resource=LEASE,
            deadline_s=self._call_s,
        )

    async def _write(self, lease: Json, spec: dict[str, Any]) -> Json:
        """Compare-and-swap: the resourceVersion that was read goes along."""
        return await self._client.call(
            "PUT",
            LEASE.path(self._settings.namespace, self._settings.name),
            resource=LEASE,
            body={**lease, "spec": spec},
            fenced=False,
            deadline_s=self._call_s,
        )

    async def _create(self, spec: dict[str, Any]) -> Json:
        meta = {"name": self._settings.name, "namespace": self._settings.namespace}
        return await self._client.call(
            "POST",
            LEASE.path(self._settings.namespace),
            resource=LEASE,
            body={"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": spec},
            fenced=False,
            deadline_s=self._call_s,
        )

    @property
    def _call_s(self) -> float:
        return self._settings.fence_s / 2

    def _spec(
        self, *, holder: str, transitions: int, acquired: bool = False, duration_s: int | None = None
    ) -> dict[str, Any]:
        now = _micro_time()
        spec: dict[str, Any] = {
            "holderIdentity": holder,
            "leaseDurationSeconds": duration_s or self._settings.duration_s,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        if acquired:
            spec["acquireTime"] = now
        return spec


def _transitions(lease: Json) -> int:
    return int(lease["spec"].get("leaseTransitions") or 0)


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
