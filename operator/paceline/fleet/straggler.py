"""Which engine pod of a service is much slower than its peers: a throttled GPU, a bad node. Pure; the decision loop asks
once a period.

Routers count requests in flight, so a pod that is five times slower than n - 1 others still gets one request in
5(n - 1) + 1, and all of these miss their targets: no number of replicas brings the service back inside its objective.
Compared is the mean time between two tokens over the window of the metrics, among pods that should be alike: one
variant, one layout, one product of GPU. A pod of which nothing certain is known is neither judged nor judged by.

    ms a token      the slowest against the median of the others
    20 21 100       100 against 20.5   a straggler
    20 100          100 against 20     a straggler: no pod is three times faster than it should be
    20 21 55        55 against 20.5    none: long prompts and a full batch may do that
    ?  100          one alone is compared with nothing
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from paceline.fleet.feasibility import PRODUCT_LABEL
from paceline.fleet.observed import Observed, Pod

SLOWER_BY = 3.0
"""Alike pods differ by less: routers keep them about equally full, and even four times as many sequences (64 against 16, of
2,000 tokens each) make a step of the shipped timing tables 1.5 times longer, 2.1 times at most."""

MIN_TOKENS = 200
"""Of one pod in the window. Among so few, a handful of steps with somebody else's long prompt may double the mean."""

MIN_WAIT_S = 60.0
"""Or the time that its streams spent waiting for tokens, all together: one that waited for a whole window proves a
slow pod too, however few tokens it got. Without: the slower a pod, the less is known of it."""

SUSTAINED_S = 60.0
"""How long every look must find the same pod, and a window of the metrics at least: then the first and the last look
have no token in common, and one bad moment is not seen twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How the streams of one pod went on in the window of the metrics."""

    mean_s: float
    """Between two tokens of a stream."""

    tokens: float

    @property
    def is_known(self) -> bool:
        enough = self.tokens >= MIN_TOKENS or self.tokens * self.mean_s >= MIN_WAIT_S
        return enough and self.mean_s > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    pod: str
    uid: str
    mean_s: float
    peers_s: float
    """The median of the others."""

    @property
    def times(self) -> float:
        return self.mean_s / self.peers_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A pod that every look found slow, from the first of them to the last."""

    straggler: Straggler
    """As the last look found it."""

    since_s: float
    until_s: float

    def is_proven(self, *, window_s: float) -> bool:
        return self.until_s - self.since_s >= max(SUSTAINED_S, window_s)


def slowest(observed: Observed, paces: Mapping[str, Pace]) -> Straggler | None:
    """By the figures of one look. `paces` by the name of the pod; one that is not there is unknown."""
    known = [
        (pod, pace.mean_s)
        for pod in observed.pods
        if pod.component == "engine" and pod.serving and pod.serves_in is not None
        if (pace := paces.get(pod.name)) is not None and pace.is_known
    ]
    means_s = [mean_s for _, mean_s in known]
    if not known or max(means_s) <= SLOWER_BY * min(means_s):
        # Nearly every look ends here: the nodes of the cluster are gone through only with a reason.
        return None
    products = {node.name: node.labels.get(PRODUCT_LABEL) for node in observed.nodes}
    alike = defaultdict[object, list[tuple[Pod, float]]](list)
    for pod, mean_s in known:
        alike[pod.variant, pod.serves_in, products.get(pod.node or "")].append((pod, mean_s))
    found = (one for pods in alike.values() if (one := _slowest_of(pods)) is not None)
    return max(found, key=lambda one: one.times, default=None)


def suspected(
    before: Suspicion | None, found: Straggler | None, *, now_s: float, window_s: float
) -> Suspicion | None:
    """After one more look. Looks that are further apart than a window leave a time of which nothing is known."""
    if found is None:
        return None
    since_s = now_s
    if before is not None and before.straggler.uid == found.uid and 0 <= now_s - before.until_s <= window_s:
        since_s = before.since_s
    return Suspicion(straggler=found, since_s=since_s, until_s=now_s)


def _slowest_of(pods: Sequence[tuple[Pod, float]]) -> Straggler | None:
    """Of pods that should be alike."""
    if len(pods) < 2:
        return None
    *others, (pod, mean_s) = sorted(pods, key=lambda one: one[1])
    peers_s = median(one for _, one in others)
    if mean_s <= SLOWER_BY * peers_s:
        return None
    return Straggler(pod=pod.name, uid=pod.uid, mean_s=mean_s, peers_s=peers_s)
