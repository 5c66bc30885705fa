"""The ResourceQuotas of the cluster, listed once a tick of the decision loop: few objects, whose `used` changes
with every pod.

What could not be read is unknown, and unknown is not "no limit": the last answer holds, however old. Where there
has been none yet, nobody may take more (`of` says None). A missing right is another matter: nothing will ever be
known then, and a pod that a quota refuses ends its change at the deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from paceline.controller.api_client import ApiClient
from paceline.controller.errors import ApiError, Rejected
from paceline.controller.resources import RESOURCE_QUOTA

log = structlog.get_logger()

READ_S: Final = 5.0
"""A tick waits no longer for the list: the last one is good enough."""

Quota = Mapping[str, Any]


class QuotaBook:
    def __init__(self, client: ApiClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._known: Mapping[str, Sequence[Quota]] | None = None
        """By namespace."""

        self._read_at_s = 0.0
        self._is_failing = False

    @property
    def age_s(self) -> float | None:
        """Of what is known; None: nothing is."""
        return self._clock() - self._read_at_s if self._known is not None else None

    def of(self, namespace: str) -> Sequence[Quota] | None:
        return self._known.get(namespace, ()) if self._known is not None else None

    async def read(self) -> None:
        try:
            async with asyncio.timeout(READ_S):
                items, _ = await self._client.list(RESOURCE_QUOTA, namespace=None, selector=None)
        except (ApiError, TimeoutError) as error:
            self._failed(error)
            return
        if self._is_failing:
            log.info("quotas are known again")
        self._take(items)
        self._is_failing = False

    def _take(self, items: Sequence[Quota]) -> None:
        found: dict[str, list[Quota]] = {}
        for one in items:
            found.setdefault(one["metadata"]["namespace"], []).append(one)
        self._known, self._read_at_s = found, self._clock()

    def _failed(self, error: Exception) -> None:
        if not self._is_failing:
            text = str(error) or f"no answer within {READ_S:g} s"
            log.warning("quotas cannot be read: those known last hold", error=text, age_s=self.age_s)
        self._is_failing = True
        if isinstance(error, Rejected) and error.status == 403 and self._known is None:
            self._take(())
