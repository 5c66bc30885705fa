"""What the decision loop remembers of each service between two looks, and what of it a new process finds again."""

from __future__ import annotations

from dataclasses import dataclass, field

from paceline.controller.decision_metrics import DecisionMetrics
from paceline.controller.decision_record import plain_state, state_of
from paceline.controller.decision_store import DecisionStore
from paceline.controller.error_budget import ErrorBudget
from paceline.controller.start_times import StartTimes
from paceline.controller.work_queue import ServiceKey
from paceline.fleet import Observed
from paceline.fleet.advice import Choice
from paceline.fleet.straggler import Straggler, Suspicion, suspected
from paceline.metrics import ServiceMetrics
from paceline.planner import Doors, PlannerState, Rest


@dataclass(slots=True)
class Memory:
    budget: ErrorBudget
    state: PlannerState = field(default_factory=PlannerState)
    looked_s: float | None = None
    last: Choice | None = None
    metrics: ServiceMetrics | None = None
    rest: Rest = field(default_factory=Rest)
    """Not kept: a process that has just started counts the idle time anew."""

    doors: Doors = field(default_factory=dict)
    """What the gates said last, while the service is at zero."""

    suspicion: Suspicion | None = None
    """Not kept either: what it led to stands in the status."""

    def suspect(self, found: Straggler | None, *, now_s: float, window_s: float) -> Straggler | None:
        """The one that enough looks have found by now."""
        self.suspicion = suspected(self.suspicion, found, now_s=now_s, window_s=window_s)
        if self.suspicion is None or not self.suspicion.is_proven(window_s=window_s):
            return None
        return self.suspicion.straggler


class MemoryBook:
    def __init__(self, *, store: DecisionStore, metrics: DecisionMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._memories: dict[ServiceKey, Memory] = {}
        self.start_times = StartTimes()

    def of(self, key: ServiceKey, observed: Observed) -> Memory:
        kept, is_read = self._store.of(key, observed.meta)
        memory, window_s = self._memories.get(key), float(observed.service.spec.slo.window_seconds)
        if memory is not None and not is_read:
            if memory.budget.window_s != window_s:
                memory.budget = ErrorBudget(window_s=window_s)
            return memory
        memory = self._memories[key] = Memory(budget=ErrorBudget(window_s=window_s))
        if is_read and kept.state:
            memory.state = state_of(kept.state.get("planner")) or PlannerState()
            memory.budget.restore(kept.state.get("budget"))
            self.start_times.restore(key, kept.state.get("startSeconds") or {})
            figures, spent = self._metrics.of(key), kept.state.get("gpuSeconds") or {}
            figures.gpu_seconds = float(spent.get("held", 0.0))
            figures.saved_gpu_seconds = float(spent.get("saved", 0.0))
            figures.peak_gpus = int(spent.get("peak", 0))
            kept.state = {}
        return memory

    def to_keep(self, key: ServiceKey) -> dict[str, object]:
        memory, figures = self._memories[key], self._metrics.of(key)
        return {
            "planner": plain_state(memory.state),
            "budget": memory.budget.plain(),
            "startSeconds": self.start_times.seconds(key),
            "gpuSeconds": {
                "held": round(figures.gpu_seconds),
                "saved": round(figures.saved_gpu_seconds),
                "peak": figures.peak_gpus,
            },
        }

    def gone(self, keys: set[ServiceKey]) -> set[ServiceKey]:
        """Those that are remembered and not among `keys` any more; they are forgotten."""
        found = self._memories.keys() - keys
        for key in found:
            del self._memories[key]
            self._store.forget(key)
            self.start_times.forget(key)
        return found
