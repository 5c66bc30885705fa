"""One look at one service: observe, plan, carry out. The whole of the operator's work passes through `run`.

Called by the workers of `process`, one at a time per service. It holds no state of its own: what it knows
comes from the cache, and what it does goes to the writer. The order of execution is the one that
`fleet.actions` prescribes.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic import ValidationError

from paceline.api import InferenceService, InferenceServiceStatus
from paceline.controller.advice_book import AdviceBook
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.conflict_book import ConflictBook
from paceline.controller.errors import ApiError, FenceLost, Rejected
from paceline.controller.event_recorder import EventRecorder
from paceline.controller.facts import FactsSource
from paceline.controller.instruments import Instruments
from paceline.controller.pod_info import PodInfoSource
from paceline.controller.refusal import invalid_spec_status
from paceline.controller.status_writer import StatusWriter
from paceline.controller.work_queue import ServiceKey
from paceline.controller.writer import Outcome, Writer
from paceline.fleet import Apply, Delete, Event, Observed, Plan, Reshape, ServiceMeta, Settings, plan
from paceline.fleet.manifests import AFTER_ENGINES, ENGINES
from paceline_core.checkpoint import CheckpointFacts

log = structlog.get_logger()

UNLABELLED_S = 50.0
"""How long an object in the way that no watch tells of is believed to be there: a little less than a
resync."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the worker does with the key."""

    requeue_after_s: float | None = None
    too_early: bool = False
    """The cache was behind the cluster: the same look again, soon."""

    moved: bool = False
    """Something was written: a new look, in its time."""

    failed: bool = False
    gone: bool = False


class Reconciler:
    def __init__(
        self,
        *,
        cache: ClusterCache,
        conflicts: ConflictBook,
        writer: Writer,
        status_writer: StatusWriter,
        events: EventRecorder,
        facts: FactsSource,
        pod_infos: PodInfoSource,
        advice: AdviceBook,
        instruments: Instruments,
        settings: Callable[[], Settings],
        now_s: Callable[[], float],
    ) -> None:
        """`now_s`: Unix time, by the clock that stamps the objects."""
        self._cache = cache
        self._conflicts = conflicts
        self._writer = writer
        self._status_writer = status_writer
        self._events = events
        self._facts = facts
        self._pod_infos = pod_infos
        self._advice = advice
        self._instruments = instruments
        self._settings = settings
        self._now_s = now_s
        self._parsed: dict[ServiceKey, tuple[str, int, InferenceService]] = {}
        self._statuses: dict[ServiceKey, tuple[str, InferenceServiceStatus]] = {}
        """By resourceVersion: the decision loop looks twice a tick, and a status changes every few minutes."""

    def forget(self, key: ServiceKey) -> None:
        """The service is gone; its children go by their owner references."""
        self._parsed.pop(key, None)
        self._statuses.pop(key, None)
        self._conflicts.forget(key)
        self._advice.forget(key)
        self._cache.forget_unlabelled(key)

    async def run(self, key: ServiceKey, *, urgent_done: Callable[[], None]) -> Result:
        """`urgent_done` is called once, when what makes the engine appear is written: the rest may take its
        time."""
        raw = self._cache.service(key)
        if raw is None:
            self.forget(key)
            return Result(gone=True)
        if raw["metadata"].get("deletionTimestamp"):
            # The garbage collector takes the children; making them again would be a fight with it.
            return Result()
        try:
            service, status = self._parse(key, raw)
        except ValidationError as error:
            return await self._refuse(key, raw, error)
        facts = self._facts.lookup(key, service)
        if facts.pending_s is not None:
            return Result(requeue_after_s=facts.pending_s)
        observed = self._observe(key, raw, service=service, status=status, facts=facts.facts)
        started_s = time.perf_counter()
        what = plan(observed, settings=self._settings())
        self._instruments.plan_s.observe(time.perf_counter() - started_s)
        return await self._carry_out(key, raw, what, status=status, urgent_done=urgent_done)

    # observing

    def look(self, key: ServiceKey) -> Observed | None:
        """What a plan would be made from now. None where there is no plan to make: the service is gone, its
        spec is refused, or its facts are still on their way."""
        raw = self._cache.service(key)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            return None
        try:
            service, status = self._parse(key, raw)
        except ValidationError:
            return None
        facts = self._facts.lookup(key, service)
        if facts.pending_s is not None:
            return None
        return self._observe(key, raw, service=service, status=status, facts=facts.facts)

    def _parse(
        self, key: ServiceKey, raw: dict[str, Any]
    ) -> tuple[InferenceService, InferenceServiceStatus | None]:
        meta = raw["metadata"]
        known = self._parsed.get(key)
        if known is not None and known[:2] == (meta["uid"], meta["generation"]):
            service = known[2]
        else:
            service = InferenceService.from_manifest({k: v for k, v in raw.items() if k != "status"})
            self._parsed[key] = (meta["uid"], meta["generation"], service)
        return service, self._parse_status(key, raw)

    def _parse_status(self, key: ServiceKey, raw: dict[str, Any]) -> InferenceServiceStatus | None:
        if not (written := raw.get("status")):
            return None
        version = str(raw["metadata"]["resourceVersion"])
        known = self._statuses.get(key)
        if known is None or known[0] != version:
            known = self._statuses[key] = version, InferenceServiceStatus.from_manifest(written)
        return known[1]

    def _observe(
        self,
        key: ServiceKey,
        raw: dict[str, Any],
        *,
        service: InferenceService,
        status: InferenceServiceStatus | None,
        facts: CheckpointFacts | None,
    ) -> Observed:
        self._cache.forget_unlabelled(key, older_than_s=UNLABELLED_S)
        children = self._cache.children(key)
        self._conflicts.keep_only(key, children)
        return Observed(
            now_s=self._now_s(),
            service=service,
            meta=ServiceMeta.parse(raw),
            status=status,
            children=children,
            pods=tuple(
                replace(pod, info=info) if (info := self._pod_infos.of(key, pod)) is not None else pod
                for pod in self._cache.pods(key)
            ),
            nodes=self._cache.nodes(),
            conflicts=self._conflicts.of(key),
            facts=facts,
            advice=self._advice.of(key),
        )

    # doing

    async def _carry_out(
        self,
        key: ServiceKey,
        raw: dict[str, Any],
        what: Plan,
        *,
        status: InferenceServiceStatus | None,
        urgent_done: Callable[[], None],
    ) -> Result:
        if what.status_first and not await self._status_writer.write(key, raw, what.status, first=True):
            return Result(too_early=True)
        run = _Run()
        for priority, group in itertools.groupby(what.apply, key=lambda action: action.priority):
            if priority > ENGINES:
                urgent_done()
            await self._apply_group(run, key, tuple(group), status=status, at_once=priority < ENGINES)
        urgent_done()
        for told in what.reshape:
            if run.too_early or run.step_failed:
                break
            await self._attempt(run, key, told, self._writer.reshape(key, told))
        for gone in what.delete:
            if run.too_early:
                break
            if run.step_failed and gone.status_first:
                continue
            await self._attempt(run, key, gone, self._writer.delete(key, gone, priority=AFTER_ENGINES))
        if run.too_early:
            return Result(too_early=True)
        if run.moved and status is None and not run.failed and not what.status_first:
            # The status of a service whose children are seconds old is out of date before it is written, and
            # costs the API server more than any of them: the next look writes the first one.
            return Result(moved=True)
        if not what.status_first and not await self._status_writer.write(key, raw, what.status):
            return Result(too_early=True)
        for event in what.events:
            self._events.post(raw, event)
        return Result(requeue_after_s=what.requeue_after_s, moved=run.moved, failed=run.failed)

    async def _apply_group(
        self,
        run: _Run,
        key: ServiceKey,
        actions: tuple[Apply, ...],
        *,
        status: InferenceServiceStatus | None,
        at_once: bool,
    ) -> None:
        """Actions of one priority. What an engine needs first is independent of each other and goes at
        once; of engines one comes before another goes; a RoleBinding is refused before its Role exists."""
        if at_once:
            await asyncio.gather(
                *(
                    self._attempt(run, key, one, self._writer.apply(key, one, status=status))
                    for one in actions
                )
            )
            return
        for one in actions:
            if run.too_early:
                return
            if run.step_failed and one.status_first:
                continue
            await self._attempt(run, key, one, self._writer.apply(key, one, status=status))

    async def _attempt(
        self, run: _Run, key: ServiceKey, action: Apply | Delete | Reshape, call: Awaitable[Outcome]
    ) -> None:
        """One that fails does not stop the others, except where a step of a transition hangs on it."""
        try:
            run.note(await call)
        except FenceLost:
            raise
        except ApiError as error:
            run.failed = True
            run.step_failed = run.step_failed or action.status_first
            log.warning(
                "action failed", kind=action.kind, name=action.name, service=key.name,
                namespace=key.namespace, error=str(error),
            )  # fmt: skip
            if isinstance(error, Rejected) and (raw := self._cache.service(key)) is not None:
                message = f"{action.kind} {action.name}: {error.message}"
                self._events.post(raw, Event(type="Warning", reason="ApplyRejected", message=message))

    async def _refuse(self, key: ServiceKey, raw: dict[str, Any], error: ValidationError) -> Result:
        """A spec that got past the API server's schema (an older CRD, a client that switched validation
        off)."""
        status, event = invalid_spec_status(raw, error, now_s=self._now_s())
        written = await self._status_writer.write_raw(key, raw, status)
        if written and event is not None:
            self._events.post(raw, event)
            log.warning("spec is refused", service=key.name, namespace=key.namespace, error=event.message)
        return Result(too_early=not written)


class _Run:
    """What happened so far in one reconcile."""

    __slots__ = ("failed", "moved", "step_failed", "too_early")

    def __init__(self) -> None:
        self.moved = self.too_early = self.failed = self.step_failed = False

    def note(self, outcome: Outcome) -> None:
        self.moved = self.moved or outcome in (Outcome.WROTE, Outcome.LEARNED)
        self.too_early = self.too_early or outcome is Outcome.LOOK_AGAIN
