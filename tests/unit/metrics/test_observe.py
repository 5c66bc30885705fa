"""What an observation is made of."""

from __future__ import annotations

from dataclasses import replace

from paceline.controller.work_queue import ServiceKey as ControllerKey
from paceline.fleet import Pod
from paceline.metrics import (
    Availability,
    ClusterFacts,
    EngineFigures,
    PodView,
    ServiceKey,
    ServiceMetrics,
    observe,
)
from paceline.planner import Figure, Goal, NodeGpus, Traffic
from paceline_core import Layout
from paceline_core.latency import LatencyTarget, Targets
from tests.unit.metrics.readings import APod

GOAL = Goal(
    targets=Targets(
        classes=(
            LatencyTarget(
                name="all",
                max_prompt_tokens=None,
                ttft_ms=500,
                ttft_per_thousand_prompt_tokens_ms=0,
                tpot_ms=40,
            ),
        )
    ),
    objective=0.99,
    allowed_tensor_parallel_sizes=(1, 2),
    min_replicas=1,
    max_replicas=4,
)


def of_the_fleet(pod: Pod, key: ControllerKey) -> tuple[PodView, ServiceKey]:
    """Never called: mypy checks that the controller's own pods and keys fit."""
    return pod, key


METRICS = ServiceMetrics(
    availability=Availability(available=True, reason="Measured", message=""),
    source="Prometheus",
    traffic=Traffic(requests_per_s=Figure(value=3.0), window_s=60),
    engines={1: EngineFigures(running=Figure(value=7.0)), 8: EngineFigures(running=Figure(value=9.0))},
    notes=("a note",),
)


def test_a_size_has_a_group_while_it_has_a_pod() -> None:
    pods = [
        APod(name="a"),
        APod(name="b", ready=False, created_at_s=70.0),
        APod(name="c", deleting=True),
        APod(name="d", finished=True, tensor_parallel_size=4),
        APod(name="e", tensor_parallel_size=2, ready=False, created_at_s=95.0),
        APod(name="r", component="router", tensor_parallel_size=None),
    ]
    seen = observe(
        METRICS,
        now_s=100.0,
        goal=GOAL,
        cluster=ClusterFacts(pods=pods, nodes=(NodeGpus(total=8, free=3),)),
    )
    one, two = seen.groups
    assert (one.tensor_parallel_size, one.ready, one.starting_age_s, one.draining) == (1, 1, (30.0,), 1)
    assert one.running == Figure(value=7.0)
    assert (two.tensor_parallel_size, two.ready, two.starting_age_s, two.draining) == (2, 0, (5.0,), 0)
    assert two.running.value is None
    assert two.running.trust == "Missing"
    assert seen.nodes == (NodeGpus(total=8, free=3),)
    assert seen.traffic == METRICS.traffic
    assert seen.notes == ("a note",)


def test_a_pod_from_the_future_has_no_negative_age() -> None:
    pods = [replace(APod(name="a"), ready=False, created_at_s=130.0)]
    seen = observe(METRICS, now_s=100.0, goal=GOAL, cluster=ClusterFacts(pods=pods, nodes=()))
    assert seen.groups[0].starting_age_s == (0.0,)


def test_a_pod_counts_for_the_replicas_that_it_holds_at_the_size_that_it_serves_in() -> None:
    """Its label is that of its template, which a change in place leaves."""
    two, four = Layout(4, 2), Layout(2, 4)
    pods = [
        APod(name="a", tensor_parallel_size=8, layout=two),
        APod(name="b", tensor_parallel_size=8, layout=two, ready=False, created_at_s=90.0),
        APod(name="c", tensor_parallel_size=8, layout=four, deleting=True),
        APod(name="d", tensor_parallel_size=8, silent=True),
    ]
    metrics = replace(METRICS, engines={4: EngineFigures(running=Figure(value=5.0)), **METRICS.engines})
    seen = observe(metrics, now_s=100.0, goal=GOAL, cluster=ClusterFacts(pods=pods, nodes=()))
    leaving, changed = seen.groups
    assert (leaving.tensor_parallel_size, leaving.ready, leaving.draining) == (2, 0, 4)
    assert (changed.tensor_parallel_size, changed.ready) == (4, 2)
    assert changed.starting_age_s == (10.0, 10.0)
    assert changed.running == Figure(value=5.0)
