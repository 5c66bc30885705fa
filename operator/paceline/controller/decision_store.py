"""What the decision loop keeps in the cluster: the ConfigMap NAME-decisions, through the ordinary writer.

Read from the cache once per service after a start, written when a decision is another one and else every
`REFRESH_S`: a thousand services then cost the API server fewer than two writes a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.errors import ApiError
from paceline.controller.status_writer import STATUS_PRIORITY
from paceline.controller.work_queue import ServiceKey
from paceline.controller.writer import Writer
from paceline.fleet import Apply, ServiceMeta
from paceline.fleet.decisions_config import (
    DECISIONS,
    KEPT,
    STATE,
    as_text,
    decisions_config,
    decisions_name,
)
from paceline.fleet.ownership import is_owned

log = structlog.get_logger()

REFRESH_S = 600.0
PRIORITY = STATUS_PRIORITY + 5


@dataclass(slots=True)
class Kept:
    """What is remembered of one service."""

    uid: str
    records: list[str] = field(default_factory=list)
    """Newest first; as JSON, which takes less memory than the same as objects."""

    state: Mapping[str, Any] = field(default_factory=dict)
    """An earlier process's, until somebody has taken it over."""

    written_s: float = float("-inf")
    """On the monotonic clock."""


class DecisionStore:
    def __init__(self, writer: Writer, *, cache: ClusterCache) -> None:
        self._writer = writer
        self._cache = cache
        self._kept: dict[ServiceKey, Kept] = {}

    def of(self, key: ServiceKey, meta: ServiceMeta) -> tuple[Kept, bool]:
        """And whether it was read just now: then what it holds is an earlier process's."""
        kept = self._kept.get(key)
        if kept is not None and kept.uid == meta.uid:
            return kept, False
        kept = self._kept[key] = self._read(key, meta)
        return kept, True

    def forget(self, key: ServiceKey) -> None:
        self._kept.pop(key, None)

    async def keep(
        self,
        key: ServiceKey,
        meta: ServiceMeta,
        *,
        record: Mapping[str, Any] | None,
        state: Callable[[], Mapping[str, Any]],
    ) -> None:
        """`record` is a decision that is another one than the last; None: only the state may have moved. It
        is asked for when it is written, not at every look."""
        kept, _ = self.of(key, meta)
        if record is not None:
            kept.records = [as_text(record), *kept.records][:KEPT]
        now_s = time.monotonic()
        if record is None and now_s - kept.written_s < REFRESH_S:
            return
        kept.written_s = now_s
        await self._write(key, decisions_config(meta, decisions=kept.records, state=state()), meta)

    async def _write(self, key: ServiceKey, manifest: dict[str, Any], meta: ServiceMeta) -> None:
        live = self._cache.children(key).get(("ConfigMap", manifest["metadata"]["name"]))
        if live is not None and not is_owned(live, by=meta):
            # Somebody else's object of that name: it stays, and explanations are short.
            return
        action = Apply(
            object=manifest,
            priority=PRIORITY,
            must_be_absent=live is None,
            uid=str(live["metadata"]["uid"]) if live is not None else None,
            # Nobody else has a say in it.
            force=live is not None,
        )
        try:
            await self._writer.apply(key, action, status=None)
        except ApiError as error:
            log.warning(
                "decisions were not kept", service=key.name, namespace=key.namespace, error=str(error)
            )

    def _read(self, key: ServiceKey, meta: ServiceMeta) -> Kept:
        live = self._cache.children(key).get(("ConfigMap", decisions_name(key.name)))
        if live is None or not is_owned(live, by=meta):
            return Kept(uid=meta.uid)
        data = live.get("data") or {}
        records, state = _parsed(data.get(DECISIONS), list), _parsed(data.get(STATE), dict)
        return Kept(
            uid=meta.uid,
            records=[as_text(one) for one in records or () if isinstance(one, dict)],
            state=state or {},
            written_s=time.monotonic(),
        )


def _parsed(text: str | None, kind: type) -> Any:
    try:
        found = json.loads(text or "null")
    except ValueError:
        return None
    return found if isinstance(found, kind) else None
