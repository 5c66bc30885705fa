"""The queries of one tick, the same few for one service and for a thousand.

Each answer mixes several figures, told apart by the label `figure`: one round trip, one evaluation time. Two
rules hold everywhere:

* **A pod counts once.** A pod that is scraped twice (a PodMonitor and a job by annotation, two replicas of
  Prometheus) has two of every series; `max by (…, pod, …)` before the sum makes one of them.
* **rate first, then sum.** A counter that starts anew is one pod's affair; in a sum it would be a jump.

`timestamp()` gives the time of the newest sample only of a bare selector; of anything else it gives now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from paceline.metrics import promql, series
from paceline.metrics.facts import ServiceKey
from paceline.metrics.readings import SUM_AND_COUNT, Histogram, PodFigure, Rate

FIGURE: Final = "figure"
BLOCK_TOKENS: Final = "block_size"
BLOCKS: Final = "num_gpu_blocks"

_GROUP: Final = f"{series.NAMESPACE}, {series.SERVICE}, {series.TENSOR_PARALLEL_SIZE}"
_POD: Final = f"{_GROUP}, {series.POD}"
_ENGINE: Final = f"{_POD}, engine, model_name"
"""One series of vLLM: it has one for each engine of a data-parallel server."""

_MAX_NAMED: Final = 40
"""Up to so many names are listed in a matcher; above, everything of Paceline's is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySet:
    pods: str
    """Gauges, ages and the pace of tokens, one row a pod and figure."""

    rates: str
    """Rates over the window, one row a group and figure. That of tokens is among the pods: their sum is the group's."""

    latencies: str
    """Cumulative buckets of latencies, one row a group, figure and edge."""

    lengths: str
    """The same of prompt and output lengths, one row a service, figure and edge."""


def scope(services: Collection[ServiceKey], *, matchers: Mapping[str, str]) -> tuple[str, ...]:
    """Matchers for these services: by name while they are few."""
    found = list(promql.all_equal(matchers))
    namespaces = {key.namespace for key in services}
    names = {key.name for key in services}
    if len(namespaces) <= _MAX_NAMED:
        found.append(promql.one_of(series.NAMESPACE, namespaces))
    by_name = len(names) <= _MAX_NAMED
    found.append(promql.one_of(series.SERVICE, names) if by_name else promql.is_set(series.SERVICE))
    return tuple(found)


def query_set(where: tuple[str, ...], *, window_s: float) -> QuerySet:
    """`where`: what `scope` gave."""
    made = _Queries(where, promql.duration(window_s))
    return QuerySet(pods=made.pods(), rates=made.rates(), latencies=made.latencies(), lengths=made.lengths())


@dataclass(frozen=True, slots=True)
class _Queries:
    where: tuple[str, ...]
    window: str

    def pods(self) -> str:
        tokens = f"{BLOCK_TOKENS}, {BLOCKS}"
        usage = " or ".join(f"max by ({_ENGINE}) ({self._now(name)})" for name in series.KV_CACHE_USAGE)
        return _union(
            [
                _pod("age_s", f"time() - max by ({_POD}) (timestamp({self._now(series.RUNNING)}))"),
                _pod("age_s", f"time() - max by ({_POD}) (timestamp({self._now(series.GATE_IN_FLIGHT)}))"),
                _pod("down", f"max by ({_POD}) ({self._now('up')}) == 0"),
                _pod("running", f"sum by ({_POD}) (max by ({_ENGINE}) ({self._now(series.RUNNING)}))"),
                _pod("waiting", f"sum by ({_POD}) (max by ({_ENGINE}) ({self._now(series.WAITING)}))"),
                _pod("kv_cache_usage", f"avg by ({_POD}) ({usage})"),
                _pod("kv_cache_tokens", f"max by ({_POD}, {tokens}) ({self._now(series.CACHE_CONFIG)})"),
                _pod("held", f"max by ({_POD}) ({self._now(series.GATE_HELD)})"),
                _pod("in_flight", f"max by ({_POD}) ({self._now(series.GATE_IN_FLIGHT)})"),
                _pod("itl_sum", self._pod_rate(f"{name}_sum" for name in series.ITL)),
                _pod("itl_count", self._pod_rate(f"{name}_count" for name in series.ITL)),
            ]
        )

    def rates(self) -> str:
        judged = 'outcome!~"aborted_early|client_error"'
        in_flight = promql.selector(series.REQUESTS_IN_FLIGHT, *self.where)
        change = f"max by ({_POD}) (delta({in_flight}[{self.window}]))"
        by_outcome = f"{_POD}, latency_class, outcome"
        seconds = int(self.window.removesuffix("ms")) / 1000
        return _union(
            [
                self._rate("arrivals", [series.GATE_ARRIVALS], by=_POD),
                self._rate("client_errors", [series.GATE_CLIENT_ERRORS], by=_POD),
                self._rate("unserved", [series.GATE_UNSERVED], by=f"{_POD}, reason"),
                self._rate("good", [series.REQUESTS], 'outcome="good"', by=by_outcome),
                self._rate("judged", [series.REQUESTS], judged, by=by_outcome),
                self._rate("counted", [series.REQUESTS], by=by_outcome),
                _group("in_flight_change", f"sum by ({_GROUP}) ({change}) / {seconds:g}"),
                self._rate("prompt_tokens", [series.PROMPT_TOKENS]),
                self._rate("cached_prompt_tokens", series.CACHED_PROMPT_TOKENS),
                self._rate("output_tokens", [series.OUTPUT_TOKENS]),
                self._rate("preemptions", [series.PREEMPTIONS]),
                *self._sum_and_count("gate_ttft", [series.GATE_TTFT], by=_POD),
                *self._sum_and_count("ttft", series.TTFT),
                *self._sum_and_count("tpot", series.TPOT),
                *self._sum_and_count("prompt_length", series.PROMPT_LENGTH),
                *self._sum_and_count("output_length", series.OUTPUT_LENGTH),
            ]
        )

    def latencies(self) -> str:
        return _union(
            [
                self._buckets("gate_ttft", [series.GATE_TTFT], by=_POD),
                self._buckets("ttft", series.TTFT),
                self._buckets("itl", series.ITL),
                self._buckets("tpot", series.TPOT),
            ]
        )

    def lengths(self) -> str:
        service = f"{series.NAMESPACE}, {series.SERVICE}"
        return _union(
            [
                self._buckets("prompt_length", series.PROMPT_LENGTH, group=service),
                self._buckets("output_length", series.OUTPUT_LENGTH, group=service),
            ]
        )

    def _now(self, name: str) -> str:
        return promql.selector(name, *self.where)

    def _rates_of(self, names: Iterable[str], *matchers: str, by: str) -> str:
        return " or ".join(
            f"max by ({by}) (rate({promql.selector(name, *self.where, *matchers)}[{self.window}]))"
            for name in names
        )

    def _pod_rate(self, names: Iterable[str]) -> str:
        return f"sum by ({_POD}) ({self._rates_of(names, by=_ENGINE)})"

    def _rate(self, figure: Rate, names: Iterable[str], *matchers: str, by: str = _ENGINE) -> str:
        return _group(figure, f"sum by ({_GROUP}) ({self._rates_of(names, *matchers, by=by)})")

    def _sum_and_count(
        self, histogram: Histogram, names: Collection[str], *, by: str = _ENGINE
    ) -> Iterable[str]:
        for rate, suffix in zip(SUM_AND_COUNT[histogram], ("sum", "count"), strict=True):
            yield self._rate(rate, [f"{name}_{suffix}" for name in names], by=by)

    def _buckets(
        self, figure: Histogram, names: Iterable[str], *, by: str = _ENGINE, group: str = _GROUP
    ) -> str:
        """Empty ones too: the edge below the first entry says where its bucket begins."""
        rates = self._rates_of((f"{name}_bucket" for name in names), by=f"{by}, le")
        return _labelled(figure, f"sum by ({group}, le) ({rates})")


def _pod(figure: PodFigure, body: str) -> str:
    return _labelled(figure, body)


def _group(figure: Rate, body: str) -> str:
    return _labelled(figure, body)


def _labelled(figure: str, body: str) -> str:
    return f'label_replace({body}, "{FIGURE}", "{figure}", "", "")'


def _union(parts: Iterable[str]) -> str:
    return "\nor\n".join(parts)
