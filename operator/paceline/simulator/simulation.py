"""One run from the first arrival to the last answer: a world, its scrapes, and a policy that is asked now and then."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from paceline.planner import Goal, Shape
from paceline.simulator.core import layout
from paceline.simulator.core.pods import GpuTrace, StartStages
from paceline.simulator.core.scrapes import Judge, Scrapes
from paceline.simulator.core.traffic import Traffic
from paceline.simulator.core.world import UNLIMITED, Transition, World, WorldSettings
from paceline.simulator.summary import Outcomes, Summary, summarize
from paceline_core.latency import Targets
from paceline_core.timing import StepTiming

WORD_S = 300.0
"""How often a run says how far it is."""

AFTERMATH_S = 900.0
"""How long requests may run on after the end of the traffic; what is unfinished then has failed."""


GiveUp = Callable[[float, float], bool]
"""(requests missed so far, GPU-hours so far) → whether the run is of no use any more."""


class Policy(Protocol):
    """Asked every `period_s` for the shape of the service."""

    @property
    def period_s(self) -> float: ...

    @property
    def reads_scrapes(self) -> bool:
        """False: nothing is scraped in its run."""

    def shape(self, world: World, scrapes: Scrapes, goal: Goal) -> Shape: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    crash_at_s: tuple[float, ...] = ()
    """The oldest serving pod is lost."""
    metrics_gone: tuple[tuple[float, float], ...] = ()
    """(from, until)"""
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalChange:
    at_s: float
    targets: Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything but traffic and policy."""

    timing: Mapping[int, StepTiming]
    """How the engines are in truth."""
    goal: Goal
    max_gpus: int
    start_s: float
    """From the creation of a pod to its first request."""
    scrape_s: float = 5.0
    router: int = layout.POWER_OF_TWO
    max_queued: int = UNLIMITED
    """Requests that may wait at one replica; one more is shed."""
    cached_share: float = 0.0
    """Share of a prompt that a warm replica finds in its prefix cache."""
    transitions: tuple[Transition, ...] = ("Surge", "InPlace")
    stages: StartStages | None = None
    """Starts by stage, instead of `start_s`, which is then what the optimum reckons with."""
    faults: Faults = Faults()
    goal_changes: tuple[GoalChange, ...] = ()
    exact_latencies: bool = False
    """Quantiles are those of the requests, not of vLLM's buckets."""

    def targets_at(self, at_s: float) -> Targets:
        found = self.goal.targets
        for change in self.goal_changes:
            if at_s >= change.at_s:
                found = change.targets
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    outcomes: Outcomes
    asked: tuple[tuple[float, Shape], ...]
    gpu_trace: GpuTrace
    gpu_hours: float
    end_s: float
    decisions: int
    deciding_s: float
    wall_s: float

    def summary(self, *, objective: float, oracle_gpu_hours: float | None = None) -> Summary:
        return summarize(
            self.outcomes,
            asked=self.asked,
            gpu_hours=self.gpu_hours,
            objective=objective,
            end_s=self.end_s,
            oracle_gpu_hours=oracle_gpu_hours,
            decisions=self.decisions,
            deciding_s=self.deciding_s,
            wall_s=self.wall_s,
        )


def judge_of(targets: Targets) -> Judge:
    """`LatencyTarget.judge_streamed` for many requests at once."""

    def judge(prompt: np.ndarray, output: np.ndarray, ttft: np.ndarray, tpot: np.ndarray) -> np.ndarray:
        good = np.zeros(len(prompt), dtype=bool)
        left = np.ones(len(prompt), dtype=bool)
        for one in targets.classes:
            mine = left if one.max_prompt_tokens is None else left & (prompt <= one.max_prompt_tokens)
            due_s = (one.ttft_ms + one.ttft_per_thousand_prompt_tokens_ms * prompt / 1000) / 1000
            met = (ttft <= due_s) & ((output <= 1) | (tpot <= one.tpot_target_s))
            good |= mine & met
            left &= ~mine
        return good

    return judge


def simulate(
    traffic: Traffic,
    setting: Setting,
    policy: Policy,
    *,
    first: Shape,
    seed: int,
    tell: Callable[[float], None] | None = None,
    give_up: GiveUp | None = None,
) -> Run:
    """`tell` gets the share of the run that is done, now and then. A run that is given up ends there: what has not
    arrived by then has failed."""
    began = time.perf_counter()
    world = World(
        traffic,
        WorldSettings(
            timing=setting.timing,
            max_gpus=setting.max_gpus,
            start_s=setting.stages or setting.start_s,
            max_sequences=setting.goal.max_sequences,
            max_batched_tokens=setting.goal.max_batched_tokens,
            router=setting.router,
            max_queued=setting.max_queued,
            cached_share=setting.cached_share,
            transitions=setting.transitions,
        ),
        first=first,
        seed=seed,
    )
    scrapes = Scrapes(
        world=world,
        judge=judge_of(setting.goal.targets),
        every_s=setting.scrape_s,
        lag_s=setting.faults.lag_s,
        gone=setting.faults.metrics_gone,
        exact=setting.exact_latencies,
    )
    asked = [(0.0, first)]
    goal, decisions, deciding_s = setting.goal, 0, 0.0
    crashes = sorted(setting.faults.crash_at_s)
    changes = sorted(setting.goal_changes, key=lambda change: change.at_s)
    next_scrape_s = setting.scrape_s if policy.reads_scrapes else np.inf
    next_look_s, next_word_s = policy.period_s, WORD_S
    while world.now_s < traffic.end_s:
        next_s = min(next_scrape_s, next_look_s, traffic.end_s)
        next_s = min(next_s, *(crashes[:1] or [next_s]), *([changes[0].at_s] if changes else [next_s]))
        world.advance(next_s)
        if changes and world.now_s >= changes[0].at_s:
            goal = replace(goal, targets=changes.pop(0).targets)
            scrapes.judge = judge_of(goal.targets)
        if crashes and world.now_s >= crashes[0]:
            crashes.pop(0)
            serving = world.serving(world.asked.tensor_parallel_size)
            if serving:
                world.crash(serving[0])
        if world.now_s >= next_scrape_s:
            next_scrape_s += setting.scrape_s
            scrapes.take()
        if world.now_s >= next_look_s:
            next_look_s += policy.period_s
            before = time.perf_counter()
            shape = policy.shape(world, scrapes, goal)
            deciding_s += time.perf_counter() - before
            decisions += 1
            if shape != world.asked:
                asked.append((world.now_s, shape))
                world.ask(shape)
        if world.now_s >= next_word_s:
            next_word_s += WORD_S
            if tell is not None:
                tell(world.now_s / traffic.end_s)
            spent = world.gpu_trace.gpu_seconds(until_s=world.now_s) / 3600
            if give_up is not None and give_up(scrapes.missed, spent):
                break
    world_gpus = world.gpu_trace.gpu_seconds(until_s=traffic.end_s) / 3600
    while traffic.end_s <= world.now_s < traffic.end_s + AFTERMATH_S and not world.idle:
        world.advance(world.now_s + 10.0)
    return Run(
        outcomes=_outcomes(world, setting),
        asked=tuple(asked),
        gpu_trace=world.gpu_trace,
        gpu_hours=world_gpus,
        end_s=traffic.end_s,
        decisions=decisions,
        deciding_s=deciding_s,
        wall_s=time.perf_counter() - began,
    )


def _outcomes(world: World, setting: Setting) -> Outcomes:
    traffic = world.traffic
    failed = world.state != layout.DONE
    ttft = world.ttft_s()
    several = world.output > 1
    tpot = np.where(
        several & ~failed, (world.done_s - world.first_token_s) / np.maximum(world.output - 1, 1), np.nan
    )
    good = np.zeros(len(traffic), dtype=bool)
    edges = [0.0, *(change.at_s for change in setting.goal_changes), np.inf]
    for from_s, until_s in itertools.pairwise(edges):
        part = (traffic.arrival_s >= from_s) & (traffic.arrival_s < until_s) & ~failed
        judge = judge_of(setting.targets_at(from_s))
        good[part] = judge(
            world.prompt[part], world.output[part], ttft[part], np.nan_to_num(tpot[part], nan=0.0)
        )
    return Outcomes(
        arrival_s=traffic.arrival_s,
        prompt_tokens=world.prompt.astype(float),
        ttft_s=ttft,
        tpot_s=tpot,
        good=good,
        failed=failed,
    )
