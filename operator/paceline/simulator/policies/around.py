"""What our operator sees: Prometheus, and the pods themselves once its answers have been too old for a while.

The rivals have no such way around. Scrapes that fail (`Scrapes.gone`) are pods that do not answer, so that nobody does
here either; only what comes late comes in time. As `paceline.metrics` goes about it, and with its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from paceline.metrics.direct import LOAD_ROSE_BY
from paceline.metrics.settings import MetricsSettings
from paceline.planner import MISSING, Goal, Group, Observation, Traffic
from paceline.simulator.core.scrapes import Scrapes
from paceline.simulator.core.world import World
from paceline.simulator.policies.seen import STALE_AFTER_S, observation_of

DIRECT_AFTER_S = MetricsSettings(prometheus=None).direct_after_s


@dataclass(slots=True)
class OperatorSight:
    """Of one service, over the whole run."""

    _away_since_s: float | None = field(default=None, init=False)
    _last_rate: float | None = field(default=None, init=False)
    _asks_engines: bool = field(default=False, init=False)

    def look(self, world: World, scrapes: Scrapes, *, goal: Goal) -> Observation:
        last = scrapes.last()
        if last is not None and world.now_s - last.at_s <= STALE_AFTER_S:
            seen = observation_of(world, scrapes, goal=goal)
            self._away_since_s, self._asks_engines = None, False
            rate = seen.traffic.requests_per_s.fresh
            self._last_rate = self._last_rate if rate is None else rate
            return seen
        if self._away_since_s is None:
            self._away_since_s = world.now_s
        if world.now_s - self._away_since_s < DIRECT_AFTER_S:
            return observation_of(world, scrapes, goal=goal)
        seen = observation_of(world, replace(scrapes, lag_s=0.0), goal=goal)
        engines_were_asked = self._asks_engines
        self._asks_engines = self._asks_engines or self._load_rose(seen.traffic)
        return seen if engines_were_asked else _of_gates_alone(seen)

    def _load_rose(self, traffic: Traffic) -> bool:
        if traffic.held_requests.fresh:
            return True
        rate = traffic.requests_per_s.fresh
        return rate is not None and (self._last_rate is None or rate > LOAD_ROSE_BY * self._last_rate)


def _of_gates_alone(seen: Observation) -> Observation:
    traffic = Traffic(
        requests_per_s=seen.traffic.requests_per_s,
        window_s=seen.traffic.window_s,
        held_requests=seen.traffic.held_requests,
    )
    groups = tuple(
        Group(
            tensor_parallel_size=one.tensor_parallel_size,
            ready=one.ready,
            starting_age_s=one.starting_age_s,
            draining=one.draining,
            kv_cache_tokens=one.kv_cache_tokens,
        )
        for one in seen.groups
    )
    return replace(seen, traffic=traffic, groups=groups, attainment=MISSING)
