"""The closed loop's clock: every period it reads the metrics of all services, asks the planner, and hands the
fleet an advice. Run by `process`; one loop for all services, no timer of kopf's (those add finalizers).

    metrics ──> Observation ──> sleep rule, or Planner.decide ──> wish ──┐
                    ^                                        ^           v
    cache, requests, quotas, starts          cut: once more  └─── Division of the GPUs
                                                                         │
    Kept (ConfigMap NAME-decisions), paceline_decision_*  <──────────────┴──> Advice ──> reconciler ──> status, engines

A service at zero is looked at in between too, when the doorbell has asked its gates (`hear`).

It writes nothing that moves a service: the reconciler does, compare-and-swap, from the advice and what it
sees then. So a decision is at most a wish, and one that comes too late is not followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from paceline.api import Shape
from paceline.controller import planning
from paceline.controller.advice_book import AdviceBook
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.decision_metrics import DecisionMetrics
from paceline.controller.decision_record import record_of
from paceline.controller.decision_store import DecisionStore
from paceline.controller.division import Division, Wish
from paceline.controller.errors import FenceLost
from paceline.controller.instruments import Instruments
from paceline.controller.planners import Planners, SizedPlanner
from paceline.controller.pod_requests import PodRequests
from paceline.controller.quotas import QuotaBook
from paceline.controller.service_memory import Memory, MemoryBook
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Observed
from paceline.fleet.advice import Advice, Choice
from paceline.fleet.in_place import told_variants
from paceline.fleet.inventory import Amounts
from paceline.fleet.shape import standing_shape
from paceline.fleet.straggler import Straggler
from paceline.metrics import Gates, MetricsSource, ServiceFacts, ServiceMetrics, nothing_measured
from paceline.planner import (
    Decision,
    Doors,
    Grant,
    NodeGpus,
    Observation,
    PlannerState,
    Quantiles,
    Rest,
    sleep,
)

log = structlog.get_logger()

NO_TIMING = (
    "no step times are known of this model on this GPU. Write mode: Manual, or serve a model that has a table "
    "(docs/autoscaling.md)."
)
FIRST_AFTER_S = 1.0
"""The reconciler looks at every service first: its facts are then on their way."""


class Looks(Protocol):
    """The reconciler, as far as the loop needs it."""

    def look(self, key: ServiceKey) -> Observed | None: ...


@dataclass(slots=True, kw_only=True)
class _Look:
    """One service in one tick; filled from top to bottom."""

    key: ServiceKey
    observed: Observed
    metrics: ServiceMetrics
    memory: Memory
    standing: Shape | None
    before: PlannerState
    """What the decision is made with."""

    planner: SizedPlanner | None = None
    observation: Observation | None = None
    decision: Decision | None = None
    hindrance: str | None = None
    kept_awake: str | None = None
    straggler: Straggler | None = None
    """These three as in `Advice`."""

    is_broken: bool = False

    @property
    def choice(self) -> Choice | None:
        if self.decision is None or self.standing is None:
            return None
        return planning.choice_of(self.decision, seen=self.standing)


class DecisionLoop:
    def __init__(
        self,
        *,
        cache: ClusterCache,
        looks: Looks,
        source: MetricsSource,
        gates: Gates,
        planners: Planners,
        requests: PodRequests,
        quotas: QuotaBook,
        advice: AdviceBook,
        store: DecisionStore,
        metrics: DecisionMetrics,
        instruments: Instruments,
        wanted: Callable[[ServiceKey, bool], None],
        period_s: float,
        gpu_budget: int | None,
    ) -> None:
        self._cache = cache
        self._looks = looks
        self._source = source
        self._gates = gates
        self._planners = planners
        self._requests = requests
        self._quotas = quotas
        self._advice = advice
        self._store = store
        self._metrics = metrics
        self._instruments = instruments
        self._wanted = wanted
        self._period_s = period_s
        self._gpu_budget = gpu_budget
        self._memories = MemoryBook(store=store, metrics=metrics)

    async def run(self) -> None:
        """Decide for ever."""
        await asyncio.sleep(FIRST_AFTER_S)
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            try:
                await self.tick()
            except FenceLost:
                raise
            except Exception:
                # No advice is an old advice: the shapes stay. The next tick tries again.
                log.exception("a look at the metrics broke")
            took_s = loop.time() - started_s
            self._instruments.decision_tick_s.observe(took_s)
            await asyncio.sleep(max(self._period_s - took_s, self._period_s / 10))

    async def tick(self) -> None:
        """One look at every service."""
        keys = list(self._cache.services())
        self._forget_all_but(set(keys))
        seen = {key: observed for key in keys if (observed := self._looks.look(key)) is not None}
        if not seen:
            return
        facts = {
            key: ServiceFacts(pods=observed.pods, load_must_be_known=planning.decides(observed))
            for key, observed in seen.items()
        }
        if any(one.load_must_be_known for one in facts.values()):
            found, _ = await asyncio.gather(self._source.collect(facts), self._quotas.read())
        else:
            found = await self._source.collect(facts)
        looks = self._looked(found)
        division = Division(
            {look.key: (look.observed, look.standing) for look in looks},
            requested=self._requested(looks),
            budget=self._gpu_budget,
        )
        by_key = {look.key: look for look in looks}
        await self._each(looks, lambda one: self._wish(one, division))
        await self._each((by_key[key] for key in division.in_turn()), lambda one: self._settle(one, division))
        await self._each(looks, self._publish)

    def _looked(self, found: Mapping[ServiceKey, ServiceMetrics]) -> list[_Look]:
        """Again: the metrics may have taken seconds, and the cluster has gone on."""
        return [
            self._look_of(key, observed, metrics)
            for key, metrics in found.items()
            if (observed := self._looks.look(key)) is not None
        ]

    def _look_of(self, key: ServiceKey, observed: Observed, metrics: ServiceMetrics | None) -> _Look:
        """None: those of the last tick."""
        memory = self._memories.of(key, observed)
        return _Look(
            key=key,
            observed=observed,
            metrics=metrics or memory.metrics or nothing_measured(),
            memory=memory,
            standing=standing_shape(observed, told_variants(observed)),
            before=memory.state,
        )

    async def _each(self, looks: Iterable[_Look], what: Callable[[_Look], Awaitable[None]]) -> None:
        """A fault of ours in one service must not stop the others; nothing more is done for that one."""
        for look in looks:
            if look.is_broken:
                continue
            try:
                await what(look)
            except FenceLost:
                raise
            except Exception:
                look.is_broken = True
                log.exception("a decision broke", service=look.key.name, namespace=look.key.namespace)

    async def hear(self, key: ServiceKey, doors: Doors) -> None:
        """The gates of a service at zero were asked: it wakes if somebody waits there."""
        observed = self._looks.look(key)
        if observed is None:
            return
        look = self._look_of(key, observed, None)
        if look.standing is None or look.standing.replicas or not planning.decides(observed):
            return
        before, look.memory.doors = look.memory.doors, doors
        called = sleep.heard(doors, before=before)
        if called is None:
            return
        nodes = planning.inventory(observed, requested=self._requested([look]))
        look.observation = self._observation(look, nodes=nodes)
        look.decision = self._at_zero(look, called=called)
        await self._keep(look)
        self._metrics.of(key).count(look.decision)
        last = self._advice.of(key) or Advice(
            made_at_s=0.0, generation=0, metrics=planning.metrics_word(look.metrics)
        )
        self._advice.put(
            key,
            replace(
                last,
                made_at_s=observed.now_s,
                generation=observed.meta.generation,
                choice=look.choice,
                hindrance=None,
                kept_awake=None,
                straggler=None,
            ),
        )
        self._wanted(key, True)

    async def _wish(self, look: _Look, division: Division) -> None:
        """What the service would do by its own limits."""
        observed, memory, attainment = look.observed, look.memory, look.metrics.attainment
        memory.metrics = look.metrics
        look.straggler = memory.suspect(
            planning.slowest_pod(observed, look.metrics),
            now_s=observed.now_s,
            window_s=look.metrics.traffic.window_s,
        )
        self._memories.start_times.hear(look.key, observed.pods)
        memory.budget.look(
            observed.now_s,
            # A share of few requests is no reason to act, and counts all the same.
            share=attainment.value if attainment.trust in ("Fresh", "Thin") else None,
            samples=attainment.samples,
            over_s=look.metrics.traffic.window_s,
        )
        if not planning.decides(observed) or look.standing is None:
            return
        look.planner = self._planners.of(look.key, observed)
        look.observation = self._observation(look, nodes=division.nodes_in_turn(look.key))
        await self._decide(look)
        if look.decision is None:
            look.hindrance = planning.unheard_layout(observed) or NO_TIMING
        elif planning.is_followed(observed, look.metrics, look.decision):
            division.wish(look.key, _wish_of(look.decision))

    async def _settle(self, look: _Look, division: Division) -> None:
        """What it does, the others considered."""
        assert look.decision is not None
        cut = division.cut(look.key)
        if cut is not None and look.planner is not None:
            look.observation = self._observation(look, nodes=cut.nodes, grant=cut.grant)
            await self._ask_planner(look, look.planner)
        division.take(look.key, _wish_of(look.decision))

    async def _decide(self, look: _Look) -> None:
        observation, memory = look.observation, look.memory
        assert observation is not None
        assert look.standing is not None
        if not look.standing.replicas:
            look.decision = self._at_zero(look, called=None)
            look.hindrance = sleep.cannot_be_woken(observation, memory.doors)
            return
        memory.rest = sleep.rested(memory.rest, observation)
        if sleep.is_due(memory.rest, observation):
            look.kept_awake = sleep.kept_awake(observation, await self._gates.ask(look.observed.pods))
            if look.kept_awake is None:
                size = look.standing.tensor_parallel_size
                look.decision = sleep.to_zero(observation, memory.rest, size=size, state=look.before)
                return
        if look.planner is not None and planning.unheard_layout(look.observed) is None:
            await self._ask_planner(look, look.planner)

    async def _ask_planner(self, look: _Look, planner: SizedPlanner) -> None:
        assert look.observation is not None
        look.decision = await asyncio.to_thread(planner.decide, look.observation, look.before)
        look.memory.state = look.decision.state

    def _at_zero(self, look: _Look, *, called: str | None) -> Decision:
        assert look.observation is not None
        assert look.standing is not None
        memory = look.memory
        size = planning.waking_size(look.observed.service, current=look.standing.tensor_parallel_size)
        decision = sleep.at_zero(look.observation, called=called, size=size, state=memory.state)
        if decision.shape.replicas:
            memory.rest, memory.doors = Rest(), {}
        return decision

    def _observation(
        self, look: _Look, *, nodes: tuple[NodeGpus, ...], grant: Grant | None = None
    ) -> Observation:
        assert look.standing is not None
        return planning.observation_of(
            look.observed,
            look.metrics,
            standing=look.standing,
            possible=look.planner.sizes if look.planner is not None else (),
            nodes=nodes,
            quotas=self._quotas.of(look.key.namespace),
            start_times=self._memories.start_times.of(look.key),
            grant=grant,
        )

    async def _publish(self, look: _Look) -> None:
        observed, memory, choice = look.observed, look.memory, look.choice
        if look.decision is not None:
            await self._keep(look)
        scaling = observed.service.spec.scaling
        size = (
            look.standing.tensor_parallel_size if look.standing is not None else scaling.tensor_parallel_size
        )
        objective = float(observed.service.spec.slo.objective_percent) / 100
        advice = Advice(
            made_at_s=observed.now_s,
            generation=observed.meta.generation,
            metrics=planning.metrics_word(look.metrics),
            measured=planning.measured(
                observed.service,
                look.metrics,
                size=size,
                budget_remaining=memory.budget.remaining(observed.now_s, objective=objective),
                burn_rates=memory.budget.burn_rates(observed.now_s, objective=objective),
            ),
            choice=choice,
            hindrance=look.hindrance,
            kept_awake=look.kept_awake,
            straggler=look.straggler,
        )
        self._count(look, advice=advice, size=size)
        is_news = self._advice.put(look.key, advice)
        moves = choice is not None and choice.shape != look.standing
        if is_news or moves:
            self._wanted(look.key, moves)

    async def _keep(self, look: _Look) -> None:
        """Log the decision and write it down, if it is another one."""
        key, memory, choice = look.key, look.memory, look.choice
        assert look.observation is not None
        assert look.decision is not None
        assert choice is not None
        record = None
        if _is_another(choice, memory.last):
            mode = look.observed.service.spec.scaling.mode
            record = record_of(look.decision, observation=look.observation, mode=mode, state=look.before)
            log.info(
                "decision",
                service=key.name,
                namespace=key.namespace,
                mode=mode,
                replicas=choice.shape.replicas,
                tensor_parallel_size=choice.shape.tensor_parallel_size,
                before=f"{choice.seen.replicas}xTP{choice.seen.tensor_parallel_size}",
                reason=choice.reason,
                limit=choice.limit,
                feasible=choice.feasible,
                message=choice.message,
            )
        memory.last = choice
        await self._store.keep(
            key, look.observed.meta, record=record, state=lambda: self._memories.to_keep(key)
        )

    def _requested(self, looks: Iterable[_Look]) -> Mapping[str, Amounts]:
        """What pods request, by node. Where those of others may not be listed, the GPUs of these services are
        all that is known: then a pod may stay Pending for somebody else's, and is withdrawn."""
        deciding = [look for look in looks if planning.decides(look.observed)]
        if not deciding:
            return {}
        known = self._requests.by_node()
        return known if known is not None else planning.own_requests(look.observed for look in looks)

    def _forget_all_but(self, keys: set[ServiceKey]) -> None:
        for gone in self._memories.gone(keys):
            self._advice.forget(gone)
            self._planners.forget(gone)
        self._metrics.keep_only(keys)

    def _count(self, look: _Look, *, advice: Advice, size: int) -> None:
        memory, figures = look.memory, self._metrics.of(look.key)
        now_s = time.monotonic()
        if memory.looked_s is not None:
            held = sum(pod.gpus for pod in look.observed.pods if not pod.finished)
            figures.spend(held, now_s - memory.looked_s)
        memory.looked_s = now_s
        figures.mode, figures.decision = look.observed.service.spec.scaling.mode, None
        if look.decision is not None:
            figures.count(look.decision)
        if look.straggler is not None:
            figures.find(look.straggler)
        figures.attainment = advice.measured.attainment
        figures.budget_remaining = advice.measured.budget_remaining
        figures.burn_rates = {str(one.window_seconds): float(one.value) for one in advice.measured.burn_rates}
        engines = look.metrics.engines.get(size)
        figures.measured = {
            **_quantiles("ttft", look.metrics.client_time_to_first_token),
            **(_quantiles("tpot", engines.time_per_output_token) if engines is not None else {}),
        }


def _wish_of(decision: Decision) -> Wish:
    return Wish(shape=decision.shape, in_place=decision.in_place)


def _is_another(choice: Choice, last: Choice | None) -> bool:
    if last is None or choice.shape != last.shape or choice.shape != choice.seen:
        return last is None or (choice.shape, choice.seen) != (last.shape, last.seen)
    return (choice.limit, choice.feasible) != (last.limit, last.feasible)


def _quantiles(figure: str, quantiles: Quantiles) -> dict[tuple[str, str], float]:
    found = {"0.5": quantiles.p50_s, "0.95": quantiles.p95_s, "0.99": quantiles.p99_s}
    return {(figure, quantile): value.fresh for quantile, value in found.items() if value.fresh is not None}
