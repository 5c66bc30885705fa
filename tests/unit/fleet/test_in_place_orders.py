"""Verify that pods on full nodes change in place in whatever order the cluster moves: one at a time, and to an end."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from paceline.fleet import Plan, Pod
from paceline_core import Layout, LayoutError, LayoutOrder
from tests.unit.fleet.simulated_cluster import Cluster
from tests.unit.fleet.test_in_place import ask, eights, follow

PODS = 2
GPUS = 8 * PODS
SHAPES = ((8, 2), (4, 4), (2, 8), (4, 2), (4, 3), (8, 1))
"""(tensor-parallel size, replicas): whole pods, fewer of them, and half a pod."""


class FullNodes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(eights(PODS))

    @initialize(at=st.sampled_from(("serving", "reshaping", "reshaping", "half-way", "half-way", "refused")))
    def begin(self, at: str) -> None:
        """A place on the way."""
        cluster = self.cluster
        cluster.settle()
        for pod in cluster.live():
            cluster.start_in(pod, "tp=8,dp=1")
        cluster.now_s += 10
        first, second = sorted(cluster.live())
        if at == "serving":
            return
        ask(cluster, size=4, replicas=4)
        if at != "reshaping":
            follow(cluster, first, "tp=4,dp=2")
        if at == "refused":
            cluster.start_in(second, "tp=8,dp=1", refused="out of memory")
            cluster.reconcile()

    @rule(shape=st.sampled_from(SHAPES))
    def somebody_edits_the_spec(self, shape: tuple[int, int]) -> None:
        self.cluster.edit({"scaling": {"tensorParallelSize": shape[0], "replicas": shape[1]}})

    @rule(data=st.data(), what=st.sampled_from(("starts", "starts", "refuses", "fails", "is-deleted")))
    def a_pod_moves(self, data: Any, what: str) -> None:
        cluster = self.cluster
        if not (pods := [pod for pod in cluster.live() if self.has_a_node(pod)]):
            return
        pod = data.draw(st.sampled_from(pods))
        match what:
            case "starts":
                cluster.start_in(pod, str(self.ordered(pod)))
            case "refuses" if self.served(pod) != self.ordered(pod):
                cluster.start_in(pod, str(self.served(pod)), refused="out of memory")
            case "fails":
                cluster.make_ready(pod, ready=False)
            case "is-deleted":
                cluster.delete_pod(pod)

    @rule(drains_end=st.booleans())
    def the_cluster_moves(self, drains_end: bool) -> None:
        if drains_end:
            self.cluster.end_drains()
        self.cluster.run_controllers()
        self.schedule()

    @rule(seconds=st.sampled_from((6, 130, 900)))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now_s += seconds
        self.carry_out(actions=None)

    @rule()
    def reconcile(self) -> None:
        self.carry_out(actions=None)

    @rule(actions=st.integers(0, 9))
    def crash_in_mid_reconcile(self, actions: int) -> None:
        self.carry_out(actions=actions)

    @precondition(lambda self: "status" in self.cluster.service)
    @rule(really=st.sampled_from((False, False, False, True)))
    def the_status_is_lost(self, really: bool) -> None:
        if really:
            del self.cluster.service["status"]

    def carry_out(self, *, actions: int | None) -> None:
        made = self.cluster.plan()
        assert made == self.cluster.plan(), "a plan is a function of what is observed"
        self.check_orders(made)
        self.cluster.carry_out(made, actions=actions)

    def check_orders(self, made: Plan) -> None:
        """Of the pods that serve, one is taken away at a time, and only while all others are as they should be."""
        serving = set(self.cluster.serving())
        taken = [
            one.name
            for one in made.reshape
            if one.name in serving and self.served(one.name) != one.order.layout
        ]
        assert len(taken) <= 1
        if taken:
            assert made.status_first
            assert serving >= set(self.cluster.live(self.variant(taken[0])))

    # what the machine knows of a pod

    def parsed(self, pod: str) -> Pod:
        return next(one for one in self.cluster.observe().pods if one.name == pod)

    def variant(self, pod: str) -> str:
        return str(self.cluster.pods[pod]["metadata"]["labels"]["paceline.dev/variant"])

    def base(self, pod: str) -> Layout:
        return Layout(int(self.variant(pod).removeprefix("tp").partition("-")[0]))

    def ordered(self, pod: str) -> Layout:
        try:
            return LayoutOrder.parse(self.parsed(pod).ordered or "").layout
        except LayoutError:
            return self.base(pod)

    def served(self, pod: str) -> Layout:
        return self.parsed(pod).layout or self.base(pod)

    def has_a_node(self, pod: str) -> bool:
        return bool(self.cluster.pods[pod]["spec"].get("nodeName"))

    def schedule(self) -> None:
        """First come, first served; the rest finds no node."""
        cluster = self.cluster
        held = sum(self.base(pod).gpus for pod in cluster.engine_pods() if self.has_a_node(pod))
        for pod in cluster.engine_pods():
            if self.has_a_node(pod) or "deletionTimestamp" in cluster.pods[pod]["metadata"]:
                continue
            held += self.base(pod).gpus
            if held <= GPUS:
                cluster.make_ready(pod, ready=False)
            else:
                held -= self.base(pod).gpus
                cluster.make_unschedulable(pod)

    def teardown(self) -> None:
        """Left in peace, it ends on what was asked for, or on what it had if that found no place or was refused."""
        cluster = self.cluster
        for _ in range(40):
            cluster.reconcile()
            cluster.run_controllers()
            cluster.end_drains()
            self.schedule()
            for pod in cluster.live():
                if self.has_a_node(pod) and (
                    pod not in cluster.serving() or self.served(pod) != self.ordered(pod)
                ):
                    cluster.start_in(pod, str(self.ordered(pod)))
            cluster.now_s += 30
        status, scaling = cluster.status, cluster.service["spec"]["scaling"]
        assert not cluster.plan().reshape
        ((variant, pods),) = cluster.variants().items()
        layouts = {self.served(pod) for pod in cluster.live()}
        assert len(layouts) == 1, "half a change is no shape"
        (layout,) = layouts
        assert len(cluster.serving(variant)) == pods
        if status.refused is None:
            assert layout.tensor_parallel_size == scaling["tensorParallelSize"]
            assert pods == -(-scaling["replicas"] // layout.data_parallel_size)


TestFullNodes = FullNodes.TestCase
TestFullNodes.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    # Shrinking replays whole clusters for minutes; the steps can be read as they are.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
