"""How many replicas the Deployment of one variant gets now: up at once, down one at a time and only when it
is safe.

Which pod leaves is not ours to choose. A ReplicaSet takes pods that are not Ready first, so lowering the
count to no less than the number that serve costs no capacity; beyond that, each step takes one that serves.
A pod that leaves always drains, whichever it is: correctness never hangs on the choice.

    replicas 4, serving 2, starting 2, wanted 1   ->  2   the two that start go
    replicas 2, serving 2,             wanted 1   ->  1   one that serves goes, nothing else being in motion
    replicas 2, serving 2, cordon,     wanted 1   ->  3   the node's pod will go anyway: one more first
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paceline.fleet.observed import Pod
from paceline.fleet.variant import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is going on around the engine pods that speaks against taking any away."""

    leaving_nodes: frozenset[str]
    router_rolling: bool
    held_replicas: frozenset[str]
    """Variants whose `replicas` another manager holds."""

    max_unavailable: int
    """Pods that evictions may take at once; no more need to stand in for them."""

    def at_risk(self, pod: Pod) -> bool:
        """Somebody else is about to take it."""
        return pod.disrupted or pod.node in self.leaving_nodes


def safe_serving(variant: Variant, *, around: Surroundings) -> int:
    return sum(1 for pod in variant.serving if not around.at_risk(pod))


def stand_ins(variant: Variant, *, around: Surroundings) -> int:
    """Replicas beyond those asked for, while nodes that hold serving pods are on their way out.

    Without: a node drain evicts the only replica, and the service waits for the next to load its weights.
    """
    return min(sum(1 for pod in variant.serving if around.at_risk(pod)), around.max_unavailable)


def disturbance(variant: Variant, *, around: Surroundings) -> str | None:
    """Why nothing that serves may be taken away now; None if nothing speaks against it."""
    if around.router_rolling:
        return "the router pods are being replaced"
    if any(around.at_risk(pod) for pod in variant.live):
        return "a node of its pods is leaving, or a pod is being evicted"
    if _is_replacing(variant):
        return "a pod that somebody deleted is being replaced"
    if not variant.settled or len(variant.live) > variant.replicas:
        return "the last change of its replicas is still being carried out"
    return None


def next_replicas(variant: Variant, *, asked: int, around: Surroundings) -> int:
    """The count for a variant that stays."""
    wanted = asked + stand_ins(variant, around=around)
    if wanted >= variant.replicas:
        return wanted
    if disturbance(variant, around=around) is not None:
        return variant.replicas
    serving = len(variant.serving)
    return max(wanted, serving if serving < variant.replicas else variant.replicas - 1)


def surplus_replicas(variant: Variant, *, lacking: int, around: Surroundings) -> int:
    """The count for a variant that leaves: as many serving pods as the one that stays still lacks, and no
    other."""
    serving = len(variant.serving)
    if serving and around.router_rolling:
        return variant.replicas
    return min(variant.replicas, max(0, min(serving, lacking)))


def surplus_counts(surplus: Iterable[Variant], *, lacking: int, around: Surroundings) -> dict[str, int]:
    """The counts for all that leave, oldest first: what one keeps the next need not, unless somebody is about to take
    it.

    Without: changes that are given up one after the other, while the variant that stays lacks a pod, would each keep
    one in its place, and its GPUs.
    """
    counts = {}
    for one in surplus:
        counts[one.name] = surplus_replicas(one, lacking=lacking, around=around)
        at_risk = len(one.serving) - safe_serving(one, around=around)
        lacking -= max(0, counts[one.name] - at_risk)
    return counts


def _is_replacing(variant: Variant) -> bool:
    """A pod was deleted by somebody else, and what comes in its place does not serve yet.

    Nothing on a pod says who deleted it. But a pod that went because the count was lowered is not replaced;
    so a pod that is missing, or began after the deletion and is not Ready, tells the other case.
    """
    deletions = [pod.deleting_since_s for pod in variant.draining if pod.deleting_since_s is not None]
    if not deletions:
        return False
    return len(variant.live) < variant.replicas or any(
        pod.created_at_s >= min(deletions) for pod in variant.starting
    )
