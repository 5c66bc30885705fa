"""The ResourceQuotas of the cluster, listed once a tick of the decision loop: few objects, whose `used` changes
with every pod.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from paceline.controller.api_client import ApiClient
from paceline.controller.errors import ApiError
from paceline.controller.resources import RESOURCE_QUOTA

log = structlog.get_logger()

Quotas = Mapping[str, Sequence[Mapping[str, Any]]]
"""By namespace."""


class QuotaBook:
    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._is_unknown = False

    async def read(self) -> Quotas:
        """Empty where they are not known: a pod that a quota refuses then ends its change at the deadline."""
        try:
            items, _ = await self._client.list(RESOURCE_QUOTA, namespace=None, selector=None)
        except ApiError as error:
            if not self._is_unknown:
                log.warning("quotas are unknown", error=str(error))
            self._is_unknown = True
            return {}
        self._is_unknown = False
        found: dict[str, list[Mapping[str, Any]]] = {}
        for one in items:
            found.setdefault(one["metadata"]["namespace"], []).append(one)
        return found
