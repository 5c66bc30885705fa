"""The closed loop's clock: every period it reads the metrics of all services, asks the planner, and hands the
fleet an advice. Run by `process`; one loop for all services, no timer of kopf's (those add finalizers).

    metrics ──> Observation ──> sleep rule, or Planner.decide ──> Advice ──> reconciler ──> status, then engines
                    ^                 │
    cache, requests, quotas, starts   └──> Kept (ConfigMap NAME-decisions), paceline_decision_*

A service at zero is looked at in between too, when the doorbell has asked its gates (`hear`).

It writes nothing that moves a service: the reconciler does, compare-and-swap, from the advice and what it
sees then. So a decision is at most a wish, and one that comes too late is not followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from paceline.api import Shape
from paceline.controller import planning
from paceline.controller.advice_book import AdviceBook
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.decision_metrics import DecisionMetrics, ServiceFigures
from paceline.controller.decision_record import plain_state, record_of, state_of
from paceline.controller.decision_store import DecisionStore
from paceline.controller.error_budget import ErrorBudget
from paceline.controller.errors import FenceLost
from paceline.controller.instruments import Instruments
from paceline.controller.planners import Planners, SizedPlanner
from paceline.controller.pod_requests import PodRequests
from paceline.controller.quotas import QuotaBook, Quotas
from paceline.controller.start_times import StartTimes
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Observed
from paceline.fleet.advice import Advice, Choice
from paceline.fleet.shape import standing_shape
from paceline.fleet.variant import observed_variants
from paceline.metrics import Gates, MetricsSource, ServiceFacts, ServiceMetrics, nothing_measured
from paceline.planner import Decision, Doors, Observation, PlannerState, Quantiles, Rest, sleep

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


@dataclass(slots=True)
class _Memory:
    """What the loop remembers of one service between two looks."""

    budget: ErrorBudget
    state: PlannerState = field(default_factory=PlannerState)
    looked_s: float | None = None
    last: Choice | None = None
    metrics: ServiceMetrics | None = None
    rest: Rest = field(default_factory=Rest)
    """Not kept: a process that has just started counts the idle time anew."""

    doors: Doors = field(default_factory=dict)
    """What the gates said last, while the service is at zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What became of the question for a shape; `hindrance` and `kept_awake` as in `Advice`."""

    decision: Decision | None = None
    hindrance: str | None = None
    kept_awake: str | None = None


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
    ) -> None:
        self._cache = cache
        self._looks = looks
        self._source = source
        self._gates = gates
        self._planners = planners
        self._requests = requests
        self._quota_book = quotas
        self._quotas: Quotas = {}
        self._advice = advice
        self._store = store
        self._metrics = metrics
        self._instruments = instruments
        self._wanted = wanted
        self._period_s = period_s
        self._start_times = StartTimes()
        self._memory: dict[ServiceKey, _Memory] = {}

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
            self._quotas = await self._quota_book.read()
        found = await self._source.collect(facts)
        for key, metrics in found.items():
            # Again: the metrics may have taken seconds, and the cluster has gone on.
            observed = self._looks.look(key)
            if observed is None:
                continue
            try:
                await self._one(key, observed, metrics)
            except FenceLost:
                raise
            except Exception:
                # A fault of ours in one service must not stop the others.
                log.exception("a decision broke", service=key.name, namespace=key.namespace)

    async def hear(self, key: ServiceKey, doors: Doors) -> None:
        """The gates of a service at zero were asked: it wakes if somebody waits there."""
        observed = self._looks.look(key)
        if observed is None:
            return
        standing = standing_shape(observed, observed_variants(observed))
        if standing is None or standing.replicas or not planning.decides(observed):
            return
        memory = self._recall(key, observed)
        before, memory.doors = memory.doors, doors
        called = sleep.heard(doors, before=before)
        if called is None:
            return
        metrics = memory.metrics or nothing_measured()
        observation = self._observation(key, observed, metrics, planner=None, standing=standing)
        decision = self._at_zero(observed, observation, memory, called=called)
        await self._keep(key, observed, observation, decision, before=memory.state)
        self._metrics.of(key).count(decision)
        last = self._advice.of(key) or Advice(
            made_at_s=0.0, generation=0, metrics=planning.metrics_word(metrics)
        )
        choice = planning.choice_of(decision, seen=standing)
        self._advice.put(
            key,
            replace(
                last,
                made_at_s=observed.now_s,
                generation=observed.meta.generation,
                choice=choice,
                hindrance=None,
                kept_awake=None,
            ),
        )
        self._wanted(key, True)

    async def _one(self, key: ServiceKey, observed: Observed, metrics: ServiceMetrics) -> None:
        memory = self._recall(key, observed)
        memory.metrics = metrics
        self._start_times.hear(key, observed.pods)
        attainment, objective = metrics.attainment, float(observed.service.spec.slo.objective_percent) / 100
        memory.budget.look(
            observed.now_s,
            # A share of few requests is no reason to act, and counts all the same.
            share=attainment.value if attainment.trust in ("Fresh", "Thin") else None,
            samples=attainment.samples,
            over_s=metrics.traffic.window_s,
        )
        standing = standing_shape(observed, observed_variants(observed))
        answer = _Answer()
        choice: Choice | None = None
        if planning.decides(observed) and standing is not None:
            answer = await self._decide(key, observed, metrics, standing=standing, memory=memory)
            if answer.decision is not None:
                choice = planning.choice_of(answer.decision, seen=standing)
        scaling = observed.service.spec.scaling
        size = standing.tensor_parallel_size if standing is not None else scaling.tensor_parallel_size
        advice = Advice(
            made_at_s=observed.now_s,
            generation=observed.meta.generation,
            metrics=planning.metrics_word(metrics),
            measured=planning.measured(
                observed.service,
                metrics,
                size=size,
                budget_remaining=memory.budget.remaining(observed.now_s, objective=objective),
                burn_rates=memory.budget.burn_rates(observed.now_s, objective=objective),
            ),
            choice=choice,
            hindrance=answer.hindrance,
            kept_awake=answer.kept_awake,
        )
        self._count(key, observed, metrics, decision=answer.decision, advice=advice, size=size)
        is_news = self._advice.put(key, advice)
        if is_news or (choice is not None and choice.shape != standing):
            self._wanted(key, choice is not None and choice.shape != standing)

    async def _decide(
        self,
        key: ServiceKey,
        observed: Observed,
        metrics: ServiceMetrics,
        *,
        standing: Shape,
        memory: _Memory,
    ) -> _Answer:
        planner = self._planners.of(key, observed)
        observation = self._observation(key, observed, metrics, planner=planner, standing=standing)
        before = memory.state
        hindrance = kept_awake = None
        decision: Decision | None = None
        if not standing.replicas:
            decision = self._at_zero(observed, observation, memory, called=None)
            hindrance = sleep.cannot_be_woken(observation, memory.doors)
        else:
            memory.rest = sleep.rested(memory.rest, observation)
            if sleep.is_due(memory.rest, observation):
                kept_awake = sleep.kept_awake(observation, await self._gates.ask(observed.pods))
                if kept_awake is None:
                    size = standing.tensor_parallel_size
                    decision = sleep.to_zero(observation, memory.rest, size=size, state=before)
            if decision is None and planner is not None:
                decision = await asyncio.to_thread(planner.decide, observation, before)
                memory.state = decision.state
        if decision is None:
            return _Answer(hindrance=NO_TIMING, kept_awake=kept_awake)
        await self._keep(key, observed, observation, decision, before=before)
        return _Answer(decision=decision, hindrance=hindrance, kept_awake=kept_awake)

    def _at_zero(
        self, observed: Observed, observation: Observation, memory: _Memory, *, called: str | None
    ) -> Decision:
        assert observation.current is not None
        size = planning.waking_size(observed.service, current=observation.current.tensor_parallel_size)
        decision = sleep.at_zero(observation, called=called, size=size, state=memory.state)
        if decision.shape.replicas:
            memory.rest, memory.doors = Rest(), {}
        return decision

    def _observation(
        self,
        key: ServiceKey,
        observed: Observed,
        metrics: ServiceMetrics,
        *,
        planner: SizedPlanner | None,
        standing: Shape,
    ) -> Observation:
        return planning.observation_of(
            observed,
            metrics,
            standing=standing,
            timed=planner.sizes if planner is not None else (),
            nodes=planning.inventory(
                observed, requested=self._requests.by_node(), own=self._own_requests(observed)
            ),
            quotas=self._quotas.get(key.namespace, ()),
            start_times=self._start_times.of(key),
        )

    async def _keep(
        self,
        key: ServiceKey,
        observed: Observed,
        observation: Observation,
        decision: Decision,
        *,
        before: PlannerState,
    ) -> None:
        """Log the decision and write it down, if it is another one. `before` is the state it was made with."""
        assert observation.current is not None
        memory, standing = self._memory[key], planning.fleet_shape(observation.current)
        choice = planning.choice_of(decision, seen=standing)
        record = None
        if _is_another(choice, memory.last):
            mode = observed.service.spec.scaling.mode
            record = record_of(decision, observation=observation, mode=mode, state=before)
            log.info(
                "decision",
                service=key.name,
                namespace=key.namespace,
                mode=mode,
                replicas=choice.shape.replicas,
                tensor_parallel_size=choice.shape.tensor_parallel_size,
                before=f"{standing.replicas}xTP{standing.tensor_parallel_size}",
                reason=choice.reason,
                limit=choice.limit,
                feasible=choice.feasible,
                message=choice.message,
            )
        memory.last = choice
        await self._store.keep(
            key,
            observed.meta,
            record=record,
            state=lambda: self._to_keep(key, memory, self._metrics.of(key)),
        )

    def _own_requests(self, observed: Observed) -> Mapping[str, Mapping[str, float]]:
        """GPUs that pods of ours hold, by node: all that is known where other pods may not be listed."""
        name = observed.service.spec.accelerator.resource_name
        held: dict[str, dict[str, float]] = {}
        for key in self._cache.services():
            for pod in self._cache.pods(key):
                if pod.node is not None and not pod.finished:
                    of_node = held.setdefault(pod.node, {})
                    of_node[name] = of_node.get(name, 0.0) + pod.gpus
        return held

    # memory

    def _recall(self, key: ServiceKey, observed: Observed) -> _Memory:
        kept, is_read = self._store.of(key, observed.meta)
        memory, window_s = self._memory.get(key), float(observed.service.spec.slo.window_seconds)
        if memory is not None and not is_read:
            if memory.budget.window_s != window_s:
                memory.budget = ErrorBudget(window_s=window_s)
            return memory
        memory = self._memory[key] = _Memory(budget=ErrorBudget(window_s=window_s))
        if is_read and kept.state:
            memory.state = state_of(kept.state.get("planner")) or PlannerState()
            memory.budget.restore(kept.state.get("budget"))
            self._start_times.restore(key, kept.state.get("startSeconds") or {})
            figures, spent = self._metrics.of(key), kept.state.get("gpuSeconds") or {}
            figures.gpu_seconds = float(spent.get("held", 0.0))
            figures.saved_gpu_seconds = float(spent.get("saved", 0.0))
            figures.peak_gpus = int(spent.get("peak", 0))
        return memory

    def _to_keep(self, key: ServiceKey, memory: _Memory, figures: ServiceFigures) -> dict[str, object]:
        return {
            "planner": plain_state(memory.state),
            "budget": memory.budget.plain(),
            "startSeconds": self._start_times.seconds(key),
            "gpuSeconds": {
                "held": round(figures.gpu_seconds),
                "saved": round(figures.saved_gpu_seconds),
                "peak": figures.peak_gpus,
            },
        }

    def _forget_all_but(self, keys: set[ServiceKey]) -> None:
        for gone in self._memory.keys() - keys:
            del self._memory[gone]
            self._store.forget(gone)
            self._start_times.forget(gone)
            self._advice.forget(gone)
            self._planners.forget(gone)
        self._metrics.keep_only(keys)

    # figures

    def _count(
        self,
        key: ServiceKey,
        observed: Observed,
        metrics: ServiceMetrics,
        *,
        decision: Decision | None,
        advice: Advice,
        size: int,
    ) -> None:
        memory, figures = self._memory[key], self._metrics.of(key)
        now_s = time.monotonic()
        if memory.looked_s is not None:
            held = sum(pod.gpus for pod in observed.pods if not pod.finished)
            figures.spend(held, now_s - memory.looked_s)
        memory.looked_s = now_s
        figures.mode, figures.decision = observed.service.spec.scaling.mode, None
        if decision is not None:
            figures.count(decision)
        figures.attainment = advice.measured.attainment
        figures.budget_remaining = advice.measured.budget_remaining
        figures.burn_rates = {str(one.window_seconds): float(one.value) for one in advice.measured.burn_rates}
        engines = metrics.engines.get(size)
        figures.measured = {
            **_quantiles("ttft", metrics.client_time_to_first_token),
            **(_quantiles("tpot", engines.time_per_output_token) if engines is not None else {}),
        }


def _is_another(choice: Choice, last: Choice | None) -> bool:
    if last is None or choice.shape != last.shape or choice.shape != choice.seen:
        return last is None or (choice.shape, choice.seen) != (last.shape, last.seen)
    return (choice.limit, choice.feasible) != (last.limit, last.feasible)


def _quantiles(figure: str, quantiles: Quantiles) -> dict[tuple[str, str], float]:
    found = {"0.5": quantiles.p50_s, "0.95": quantiles.p95_s, "0.99": quantiles.p99_s}
    return {(figure, quantile): value.fresh for quantile, value in found.items() if value.fresh is not None}
