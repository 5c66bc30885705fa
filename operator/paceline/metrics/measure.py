"""Readings in, figures out: the one place that decides what a number from the metrics is worth. Pure.

Called by `source`, for Prometheus' answers and for the pods' own pages alike. What cannot be told is None
with the reason among the notes, never 0; a service without requests has a rate of 0 and no latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from paceline.metrics import histogram
from paceline.metrics.facts import PodView, ServiceFacts
from paceline.metrics.readings import SUM_AND_COUNT, Histogram, Labels, PodFigure, Readings
from paceline.metrics.service_metrics import (
    Availability,
    EngineFigures,
    Reason,
    ServiceMetrics,
    Source,
)
from paceline.metrics.settings import Rules
from paceline.metrics.sight import NOTHING_THERE, Kind, Problem, Sight, look, worse
from paceline.planner import Figure, Lengths, Quantiles, Traffic

_SHARES: Final = (0.5, 0.95, 0.99)
_MESSAGE_CHARACTERS: Final = 1000
_GATES: Final = frozenset[int | None]({None})
"""The label of what gates count: they have none."""


def unknown(problem: Problem, *, rules: Rules, source: Source = "None") -> ServiceMetrics:
    """Nothing could be learned."""
    return ServiceMetrics(
        availability=_availability([problem], source=source),
        source=source,
        traffic=Traffic(requests_per_s=Figure(value=None, trust="Missing"), window_s=rules.window_s),
        notes=(problem.message,),
    )


def nothing_measured() -> ServiceMetrics:
    """Before the first look."""
    return unknown(Problem(reason="Starting", message="The metrics have not been read yet."), rules=Rules())


def measure(
    readings: Readings,
    facts: ServiceFacts,
    *,
    rules: Rules,
    now_s: float,
    skew_s: float = 0.0,
    source: Source = "Prometheus",
    engines_asked: bool = True,
    problems: Iterable[Problem] = (),
) -> ServiceMetrics:
    """`problems`: what is known to be wrong already, such as a query that failed. Engines that were not even
    asked are unknown without being a problem."""
    measurement = _Measurement(readings, facts, rules, now_s, skew_s, source, engines_asked, list(problems))
    return measurement.made()


@dataclass(slots=True)
class _Measurement:
    readings: Readings
    facts: ServiceFacts
    rules: Rules
    now_s: float
    skew_s: float
    source: Source
    engines_asked: bool
    problems: list[Problem]
    gates: Sight = field(init=False)
    engines: Sight = field(init=False)
    """Of all sizes together."""

    def made(self) -> ServiceMetrics:
        engines = [pod for pod in self.facts.pods if pod.component == "engine"]
        self.gates = self._look([pod for pod in self.facts.pods if pod.component == "router"], "router")
        self.engines = self._look(engines, "engine")
        for sight in (self.gates, self.engines):
            if sight.problem is not None and not (sight.nothing_there and self.gates.trust == "Fresh"):
                self.problems.append(sight.problem)
        sizes = sorted({size for pod in engines if (size := _size(pod)) is not None})
        figures = {
            size: self._engine_figures(size, [pod for pod in engines if _size(pod) == size]) for size in sizes
        }
        traffic, attainment = self._settle_contradiction(self._traffic(), self._attainment())
        client_time_to_first_token = self._quantiles("gate_ttft", _GATES, self.gates)
        # Now all problems are known.
        return ServiceMetrics(
            availability=_availability(self.problems, source=self.source),
            source=self.source,
            traffic=traffic,
            attainment=attainment,
            engines=figures,
            pod_inter_token_latency={pod.name: self._pod_inter_token_latency(pod) for pod in engines},
            client_time_to_first_token=client_time_to_first_token,
            notes=tuple(dict.fromkeys(one.message for one in self.problems)),
        )

    def _look(self, pods: list[PodView], kind: Kind) -> Sight:
        if kind == "engine" and not self.engines_asked:
            return Sight(trust="Missing")
        return look(
            pods,
            self.readings,
            kind=kind,
            rules=self.rules,
            now_s=self.now_s,
            skew_s=self.skew_s,
            source=self.source,
        )

    # -- Traffic ------------------------------------------------------------------------------------------

    def _traffic(self) -> Traffic:
        readings, window_s = self.readings, self.rules.window_s
        arrivals, faults = readings.rate("arrivals"), readings.rate("client_errors")
        requests_per_s = None if arrivals is None or faults is None else max(arrivals - faults, 0.0)
        if requests_per_s is None and self.gates.trust == "Fresh":
            self._report(
                "TooFewScrapes",
                "The arrivals at the gates have no rate: their counters have less than two samples in "
                f"{window_s:g} s. Let Prometheus scrape the pods more often, every {window_s / 4:g} s at the least.",
            )
        prompt_tokens, cached = readings.rate("prompt_tokens"), readings.rate("cached_prompt_tokens")
        prompts = (readings.rate("prompt_length_count") or 0.0) * window_s
        share = None
        if prompt_tokens is not None and cached is not None and prompt_tokens > 0:
            share = min(max(cached / prompt_tokens, 0.0), 1.0)
        return Traffic(
            requests_per_s=self._rate_figure(
                self.gates, requests_per_s, "The rate of arrivals", per_window=True
            ),
            window_s=window_s,
            prompt=self._lengths("prompt_length"),
            output=self._lengths("output_length"),
            cached_prompt_share=self.engines.figure(share, samples=prompts, least=self.rules.min_samples),
            held_requests=self._over_pods("held", self.gates, "The number of held requests"),
            in_flight_requests=self._over_pods("in_flight", self.gates, "The number of requests in flight"),
        )

    def _lengths(self, name: Histogram) -> Lengths | None:
        if self.engines.trust != "Fresh":
            return None
        buckets = self.readings.histogram(name)
        sum_per_s, count_per_s = (self.readings.rate(one) for one in SUM_AND_COUNT[name])
        if not _finite(*buckets.values(), sum_per_s, count_per_s):
            self._report("NotANumber", f"The histogram of {name.replace('_', ' ')}s holds a NaN.")
            return None
        if sum_per_s is None or not count_per_s:
            return None
        mean_tokens = sum_per_s / count_per_s
        return histogram.lengths(buckets, mean_tokens=mean_tokens, window_s=self.rules.window_s)

    def _attainment(self) -> Figure:
        """Good requests over all that count: those that engines judged, and those that no engine saw."""
        good, judged = self.readings.rate("good"), self.readings.rate("judged")
        unserved = self.readings.rate("unserved")
        sight = worse(self.gates, self.engines)
        if self.engines.nothing_there:
            sight, good, judged = self.gates, good or 0.0, judged or 0.0
        if unserved is None or good is None or judged is None:
            return sight.figure(None)
        total = judged + unserved
        samples = total * self.rules.window_s
        if total == 0:
            return sight.no_samples()
        share = min(good / total, 1.0)
        figure = sight.figure(share, samples=samples, least=self.rules.min_samples)
        self._note_nan(share, "The count of good requests")
        return figure

    def _settle_contradiction(self, traffic: Traffic, attainment: Figure) -> tuple[Traffic, Figure]:
        """Gates and engines count the same requests on two sides of the router. Where they cannot both be
        right, a gate is not scraped, or engines are reached by another way: neither count may be acted on."""
        arrivals, unserved = self.readings.rate("arrivals"), self.readings.rate("unserved")
        counted, change = self.readings.rate("counted"), self.readings.rate("in_flight_change")
        if arrivals is None or unserved is None or counted is None or change is None:
            return traffic, attainment
        if self.gates.trust != "Fresh" or self.engines.trust != "Fresh":
            return traffic, attainment
        window_s, rules = self.rules.window_s, self.rules
        if any(
            pod.ready_since_s is not None and self.now_s - pod.ready_since_s < window_s + rules.scrape_grace_s
            for pod in self.facts.pods
            if pod.component == "engine" and pod.ready
        ):
            # Its counters began within the window, and what held requests made of them before the first scrape
            # is in no rate.
            return traffic, attainment
        at_gates, at_engines = arrivals * window_s, (counted + change + unserved) * window_s
        apart = abs(at_gates - at_engines)
        larger, smaller = max(at_gates, at_engines), max(min(at_gates, at_engines), 0.0)
        if not (apart > rules.contradiction_requests and larger > rules.contradiction_ratio * smaller):
            return traffic, attainment
        self._report(
            "Contradicted",
            f"In {window_s:g} s the gates counted {at_gates:.0f} requests and the engines {at_engines:.0f}: is there a "
            "gate that Prometheus does not know, or another way to the engines?",
        )
        rate = replace(traffic.requests_per_s, trust="Contradicted")
        if attainment.trust == "Fresh":
            attainment = replace(attainment, trust="Contradicted")
        return replace(traffic, requests_per_s=rate), attainment

    # -- Engines ------------------------------------------------------------------------------------------

    def _engine_figures(self, size: int, pods: list[PodView]) -> EngineFigures:
        sight = self._look(pods, "engine")
        named = f" of the replicas of tensor-parallel size {size}"
        labels = self._labels(size, pods)
        prompt_tokens = self.readings.rate("prompt_tokens", labels)
        cached = self.readings.rate("cached_prompt_tokens", labels)
        computed = None if prompt_tokens is None else max(prompt_tokens - (cached or 0.0), 0.0)
        return EngineFigures(
            running=self._over_pods("running", sight, f"The number of running requests{named}"),
            waiting=self._over_pods("waiting", sight, f"The number of waiting requests{named}"),
            kv_cache_usage=self._over_pods(
                "kv_cache_usage", sight, f"The usage of the KV cache{named}", mean=True
            ),
            prefill_tokens_per_s=self._rate_figure(sight, computed, f"The rate of prompt tokens{named}"),
            decode_tokens_per_s=self._rate_figure(
                sight, self.readings.rate("output_tokens", labels), f"The rate of output tokens{named}"
            ),
            preemptions_per_s=self._rate_figure(
                sight, self.readings.rate("preemptions", labels), f"The rate of preemptions{named}"
            ),
            time_to_first_token=self._quantiles("ttft", labels, sight),
            inter_token_latency=self._quantiles("itl", labels, sight),
            time_per_output_token=self._quantiles("tpot", labels, sight),
            kv_cache_tokens=self._kv_cache_tokens(sight),
        )

    def _labels(self, size: int, pods: list[PodView]) -> frozenset[int | None]:
        """Where the rates of this size are found: under the labels of its pods, which are those of their templates.

        Nowhere, if a pod with one of these labels may have served in another size within the window: its part of the
        sum cannot be told apart."""
        labels = frozenset(pod.tensor_parallel_size for pod in pods)
        sharing = [
            pod for pod in self.facts.pods if pod.component == "engine" and pod.tensor_parallel_size in labels
        ]
        told_apart = all(_size(pod) == size and self._is_one_size(pod) for pod in sharing if not pod.finished)
        return labels if told_apart else frozenset()

    def _is_one_size(self, pod: PodView) -> bool:
        """Whether the window holds figures of no other size of this pod."""
        since_s = self.now_s - self.rules.window_s - self.rules.scrape_grace_s
        return pod.changed_at_s is None or pod.changed_at_s <= since_s

    def _pod_inter_token_latency(self, pod: PodView) -> Figure:
        """A pod is worth what is known of itself; that another one is missing takes nothing from it."""
        sight, told = self._look([pod], "engine"), self.readings.pods.get(pod.name, {})
        sum_per_s, count_per_s = told.get("itl_sum"), told.get("itl_count")
        known = _size(pod) is not None and self._is_one_size(pod) and _finite(sum_per_s, count_per_s)
        if not known or sum_per_s is None or count_per_s is None:
            return sight.figure(None)
        if count_per_s <= 0:
            return sight.no_samples()
        samples = count_per_s * self.rules.window_s
        return sight.figure(sum_per_s / count_per_s, samples=samples, least=self.rules.min_samples)

    def _kv_cache_tokens(self, sight: Sight) -> int | None:
        found = [
            tokens
            for pod in sight.heard
            if (tokens := self.readings.pods[pod].get("kv_cache_tokens")) is not None
            and math.isfinite(tokens)
        ]
        return int(min(found)) if found else None

    # -- One figure ---------------------------------------------------------------------------------------

    def _over_pods(self, name: PodFigure, sight: Sight, says: str, *, mean: bool = False) -> Figure:
        """The sum, or the mean, over the pods that were heard; unknown where one of them lacks it."""
        values = [self.readings.pods[pod].get(name) for pod in sight.heard]
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not known:
            if sight.trust == "Fresh":
                self._report("NotScraped", f"{says} is not exported by {len(values) - len(known)} pods.")
            return sight.figure(None)
        self._note_nan(sum(known), says)
        value = sum(known) / len(known) if mean else sum(known)
        return sight.figure(value, samples=len(known))

    def _rate_figure(
        self, sight: Sight, value: float | None, says: str, *, per_window: bool = False
    ) -> Figure:
        self._note_nan(value, says)
        samples = value * self.rules.window_s if per_window and value is not None else None
        return sight.figure(value, samples=samples)

    def _quantiles(self, name: Histogram, labels: Labels, sight: Sight) -> Quantiles:
        buckets = self.readings.histogram(name, labels)
        sum_per_s, count_per_s = (self.readings.rate(one, labels) for one in SUM_AND_COUNT[name])
        if not buckets or sum_per_s is None or count_per_s is None:
            return Quantiles()
        if not _finite(*buckets.values(), sum_per_s, count_per_s):
            self._report("NotANumber", f"The histogram of {name.replace('_', ' ')} holds a NaN.")
            return Quantiles()
        samples = count_per_s * self.rules.window_s
        if count_per_s <= 0:
            none = sight.no_samples()
            return Quantiles(p50_s=none, p95_s=none, p99_s=none, mean_s=none)

        def at(share: float) -> Figure:
            # A p99 of twenty requests is their maximum: at least one must be expected above it.
            least = max(self.rules.min_samples, round(1 / (1 - share)))
            return sight.figure(histogram.quantile(share, buckets), samples=samples, least=least)

        p50, p95, p99 = map(at, _SHARES)
        mean = sight.figure(sum_per_s / count_per_s, samples=samples, least=self.rules.min_samples)
        return Quantiles(p50_s=p50, p95_s=p95, p99_s=p99, mean_s=mean)

    def _note_nan(self, value: float | None, says: str) -> None:
        if value is not None and not math.isfinite(value):
            self._report("NotANumber", f"{says} is {value}.")

    def _report(self, reason: Reason, message: str) -> None:
        self.problems.append(Problem(reason=reason, message=message))


def _availability(problems: list[Problem], *, source: Source) -> Availability:
    """The first thing that is wrong gives the reason; the message has all of them."""
    wrong = [one for one in problems if one.reason not in NOTHING_THERE]
    message = " ".join(dict.fromkeys(one.message for one in wrong or problems))[:_MESSAGE_CHARACTERS]
    if wrong:
        return Availability(available=False, reason=wrong[0].reason, message=message)
    if problems:
        return Availability(available=None, reason=problems[0].reason, message=message)
    asked = "Prometheus" if source == "Prometheus" else "The pods themselves"
    return Availability(available=True, reason="Measured", message=f"{asked} answered for every Ready pod.")


def _size(pod: PodView) -> int | None:
    """That it serves in. None: unknown."""
    layout = pod.serves_in
    return layout.tensor_parallel_size if layout is not None else None


def _finite(*values: float | None) -> bool:
    return all(value is None or math.isfinite(value) for value in values)
