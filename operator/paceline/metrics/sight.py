"""How well the pods that must be heard are heard: decides how far every figure made of them is trusted.

A sum over pods is as good as its worst pod. One Ready pod that is missing makes it too small by an unknown
part, so it is unknown; it is not the sum of the others. A pod that became Ready a moment ago is not missed
yet: discovery and the first scrapes take a while.

    pod           Ready longer than the grace?     heard?          then
    ----------    -----------------------------    ------------    -----------------------------
    not Ready, or leaving                          either          neither missed nor counted
    Ready         no                               no              not missed, not counted
    Ready         yes                              no              Missing
    Ready         either                           long ago        Stale
    Ready         either                           lately          Fresh
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from paceline.metrics.facts import PodView
from paceline.metrics.readings import Readings
from paceline.metrics.service_metrics import Reason, Source
from paceline.metrics.settings import Rules
from paceline.planner import Figure, Trust

NOTHING_THERE: Final = frozenset[Reason]({"NoPods", "Starting"})
"""Nothing is wrong: there is nothing to measure yet."""

_NAMED_PODS: Final = 3


Kind = Literal["engine", "router"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong with the metrics of a service."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Of the pods of one kind."""

    trust: Trust
    age_s: float | None = None
    """Since the newest sample of the pod that was heard longest ago."""

    heard: tuple[str, ...] = ()
    """Serving pods that were heard."""

    problem: Problem | None = None

    @property
    def nothing_there(self) -> bool:
        return self.problem is not None and self.problem.reason in NOTHING_THERE

    def no_samples(self) -> Figure:
        """A figure that has no value because nothing happened in the window."""
        trust: Trust = "Thin" if self.trust == "Fresh" else self.trust
        return Figure(value=None, age_s=self.age_s, samples=0.0, trust=trust)

    def figure(self, value: float | None, *, samples: float | None = None, least: float = 0) -> Figure:
        """The figure that this value is, made of these pods. `least`: samples below which it is Thin."""
        if value is None or not math.isfinite(value) or self.trust == "Missing":
            return Figure(value=None, age_s=self.age_s, samples=samples, trust="Missing")
        thin = self.trust == "Fresh" and samples is not None and samples < least
        return Figure(value=value, age_s=self.age_s, samples=samples, trust="Thin" if thin else self.trust)


def look(
    pods: Iterable[PodView],
    readings: Readings,
    *,
    kind: Kind,
    rules: Rules,
    now_s: float,
    skew_s: float,
    source: Source,
) -> Sight:
    """`pods` are all of one kind, in whatever state."""
    serving = [pod for pod in pods if pod.ready and not pod.deleting and not pod.finished]
    if not serving:
        return _unseen("NoPods", f"No {kind} pod is Ready.")
    ages_s = {
        pod.name: age_s
        for pod in serving
        if (age_s := readings.age_s(pod.name)) is not None and math.isfinite(age_s)
    }
    missing = [pod.name for pod in serving if pod.name not in ages_s and _settled(pod, rules, now_s)]
    if missing:
        reason: Reason = "PodsMissing" if ages_s else "NotScraped"
        return _unseen(reason, _missing(missing, readings, kind=kind, serving=len(serving), source=source))
    if not ages_s:
        return _unseen("Starting", f"The {kind} pods became Ready a moment ago: their first scrape is due.")
    oldest, age_s = max(ages_s.items(), key=lambda item: item[1])
    heard = tuple(sorted(ages_s))
    if age_s > rules.stale_after_s:
        message = f"The newest sample of {kind} pod {oldest} is {age_s:.0f} s old."
        return Sight(
            trust="Stale", age_s=age_s, heard=heard, problem=Problem(reason="Stale", message=message)
        )
    if abs(skew_s) > rules.max_skew_s:
        message = (
            f"Prometheus' clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} ours: "
            "how old its samples are cannot be told. Check the time service of both nodes."
        )
        problem = Problem(reason="ClockSkew", message=message)
        return Sight(trust="Contradicted", age_s=age_s, heard=heard, problem=problem)
    return Sight(trust="Fresh", age_s=age_s, heard=heard)


def worse(one: Sight, other: Sight) -> Sight:
    """What a figure made of both kinds of pods is worth."""
    rank: dict[Trust, int] = {"Fresh": 0, "Thin": 1, "Stale": 2, "Contradicted": 3, "Missing": 4}
    return max(one, other, key=lambda sight: (rank[sight.trust], sight.age_s or 0.0))


def _unseen(reason: Reason, message: str) -> Sight:
    return Sight(trust="Missing", problem=Problem(reason=reason, message=message))


def _settled(pod: PodView, rules: Rules, now_s: float) -> bool:
    # Without a time since when, it has been Ready for long: nothing is forgiven that is not known.
    return pod.ready_since_s is None or now_s - pod.ready_since_s > rules.scrape_grace_s


def _missing(names: list[str], readings: Readings, *, kind: Kind, serving: int, source: Source) -> str:
    down = [name for name in names if "down" in readings.pods.get(name, {})]
    named = ", ".join(sorted(names)[:_NAMED_PODS]) + (", …" if len(names) > _NAMED_PODS else "")
    if source == "Pods":
        return f"{len(names)} of {serving} Ready {kind} pods do not answer ({named})."
    if down:
        why = f"Its scrape of {len(down)} of them fails"
    else:
        why = f"It does not scrape them, or their pages lack the series of a Paceline {kind}"
    return f"Prometheus lacks {len(names)} of {serving} Ready {kind} pods ({named}). {why}."
