"""Puts an observation together from what metrics, cluster and spec say. Pure: the simulator and the controller
build the same thing."""

from __future__ import annotations

from collections.abc import Sequence

from paceline.metrics.facts import ClusterFacts, PodView
from paceline.metrics.service_metrics import EngineFigures, ServiceMetrics
from paceline.planner import Goal, Group, Observation


def observe(metrics: ServiceMetrics, *, now_s: float, goal: Goal, cluster: ClusterFacts) -> Observation:
    """One look at a service. A tensor-parallel size has a group while a pod serves in it, or starts."""
    by_size: dict[int, list[PodView]] = {}
    for pod in cluster.pods:
        layout = pod.serves_in
        if pod.component == "engine" and layout is not None and not pod.finished:
            # A replica is a data-parallel rank: a pod counts for as many as it holds.
            by_size.setdefault(layout.tensor_parallel_size, []).extend([pod] * layout.data_parallel_size)
    groups = (
        _group(size, replicas, metrics.engines.get(size, EngineFigures()), now_s=now_s)
        for size, replicas in sorted(by_size.items())
    )
    return Observation(
        now_s=now_s,
        goal=goal,
        traffic=metrics.traffic,
        attainment=metrics.attainment,
        groups=tuple(groups),
        nodes=cluster.nodes,
        quota_gpus=cluster.quota_gpus,
        grant=cluster.grant,
        start_times=cluster.start_times,
        current=cluster.current,
        replicas_per_pod=cluster.replicas_per_pod,
        in_place=cluster.in_place,
        changing=cluster.changing,
        refused=cluster.refused,
        no_room_beside=cluster.no_room_beside,
        notes=metrics.notes,
    )


def _group(size: int, replicas: Sequence[PodView], figures: EngineFigures, *, now_s: float) -> Group:
    """`replicas`: the pod of each."""
    staying = [pod for pod in replicas if not pod.deleting]
    return Group(
        tensor_parallel_size=size,
        ready=sum(pod.ready for pod in staying),
        starting_age_s=tuple(sorted(max(now_s - pod.created_at_s, 0.0) for pod in staying if not pod.ready)),
        draining=sum(pod.deleting for pod in replicas),
        running=figures.running,
        waiting=figures.waiting,
        kv_cache_usage=figures.kv_cache_usage,
        prefill_tokens_per_s=figures.prefill_tokens_per_s,
        decode_tokens_per_s=figures.decode_tokens_per_s,
        preemptions_per_s=figures.preemptions_per_s,
        time_to_first_token=figures.time_to_first_token,
        inter_token_latency=figures.inter_token_latency,
        time_per_output_token=figures.time_per_output_token,
        kv_cache_tokens=figures.kv_cache_tokens,
    )
