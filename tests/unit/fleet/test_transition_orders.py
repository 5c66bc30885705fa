"""Verify the engines' state machine under any order of events: people, nodes, pods, crashes of the operator.

After each plan that was carried out (or cut short by a crash), the controllers run at once, so what is
counted is what our own action did. Pods that others take are not held against it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paceline.fleet import Apply, Plan
from paceline.fleet.names import ANNOTATION_ASKED
from paceline.fleet.roles import assign_roles
from paceline.fleet.variant import observed_variants
from tests.unit.fleet.services import EMULATED
from tests.unit.fleet.simulated_cluster import Cluster

REFUSED = '{"verdict":"Refused","field":"spec.model.uri","message":"no"}'
SIZES = (1, 3, 9)


class Engines(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(EMULATED)
        self.highest_id = 0
        self.given_up: tuple[int, str] | None = None

    @initialize(served=st.booleans())
    def begin(self, served: bool) -> None:
        if served:
            self.cluster.settle()

    # people

    @rule(replicas=st.integers(1, 4))
    def scale(self, replicas: int) -> None:
        self.cluster.edit({"scaling": {"replicas": replicas}})

    @rule(size=st.sampled_from(SIZES))
    def change_size(self, size: int) -> None:
        self.cluster.edit({"scaling": {"tensorParallelSize": size}})

    @rule(image=st.sampled_from(["", "b:1", "c:1"]))
    def change_image(self, image: str) -> None:
        self.cluster.edit({"runtime": {"image": image}})

    @rule(data=st.data())
    def delete_a_pod(self, data: Any) -> None:
        if pods := self.cluster.live():
            self.cluster.delete_pod(data.draw(st.sampled_from(pods)))

    @rule(data=st.data())
    def evict_a_pod(self, data: Any) -> None:
        if pods := self.cluster.live():
            self.cluster.evict(data.draw(st.sampled_from(pods)))

    @rule(node=st.sampled_from(["node-a", "node-b"]), on=st.booleans())
    def cordon(self, node: str, on: bool) -> None:
        self.cluster.cordon(node, on=on)

    @rule(data=st.data())
    def delete_a_deployment(self, data: Any) -> None:
        if variants := self.cluster.variants():
            name = data.draw(st.sampled_from(sorted(variants)))
            self.cluster.delete_child("Deployment", f"chat-{name}")

    # the cluster

    @rule(data=st.data())
    def a_pod_becomes_ready(self, data: Any) -> None:
        if pods := self.cluster.live():
            self.cluster.make_ready(data.draw(st.sampled_from(pods)))

    @rule()
    def all_pods_become_ready(self) -> None:
        for pod in self.cluster.live():
            self.cluster.make_ready(pod)

    @rule(data=st.data())
    def a_pod_fails(self, data: Any) -> None:
        if pods := self.cluster.serving():
            self.cluster.make_ready(data.draw(st.sampled_from(pods)), ready=False)

    @rule(data=st.data())
    def a_pod_finds_no_node(self, data: Any) -> None:
        pods = [one for one in self.cluster.live() if one not in self.cluster.serving()]
        if pods:
            self.cluster.make_unschedulable(data.draw(st.sampled_from(pods)))

    @rule(data=st.data())
    def a_pod_is_refused(self, data: Any) -> None:
        pods = [one for one in self.cluster.live() if one not in self.cluster.serving()]
        if pods:
            self.cluster.say_verdict(data.draw(st.sampled_from(pods)), REFUSED)

    @rule()
    def controllers_run(self) -> None:
        self.cluster.run_controllers()

    @rule()
    def drains_end(self) -> None:
        self.cluster.end_drains()

    @rule(on=st.booleans())
    def the_router_rolls(self, on: bool) -> None:
        self.cluster.router_holds_still = on
        self.cluster.run_controllers()

    @rule(seconds=st.sampled_from([5, 130, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now_s += seconds

    # the operator

    @rule()
    def reconcile(self) -> None:
        self.carry_out(actions=None)

    @rule(actions=st.integers(0, 4))
    def crash_in_mid_reconcile(self, actions: int) -> None:
        """Four: the two things that an engine needs, and two Deployments."""
        self.carry_out(actions=actions)

    @precondition(lambda self: "status" in self.cluster.service)
    @rule()
    def lose_the_status(self) -> None:
        del self.cluster.service["status"]
        self.highest_id = 0
        self.given_up = None

    def carry_out(self, *, actions: int | None) -> None:
        cluster = self.cluster
        before = len(cluster.serving())
        owed = self.owed()
        made = cluster.plan()
        assert made == cluster.plan(), "a plan is a function of what is observed"
        self.check_steps(made)
        cluster.carry_out(made, actions=actions)
        if (now_owed := self.owed()) is not None and self.status_was_written(made, actions):
            owed = min(owed, now_owed) if owed is not None else now_owed
        cluster.run_controllers()
        after = len(cluster.serving())
        if owed is not None:
            assert after >= min(before, owed), f"{before} served, {owed} are owed, {after} are left"

    def owed(self) -> int | None:
        """What the variant that stays must have; None before there is one."""
        observed = self.cluster.observe()
        scaling = observed.service.spec.scaling
        variants = observed_variants(observed)
        roles = assign_roles(
            variants,
            transition=observed.status.transition if observed.status else None,
            target="",
            asked_replicas=scaling.replicas,
        )
        if roles.current is None:
            return None
        if roles.current.tensor_parallel_size == scaling.tensor_parallel_size:
            return scaling.replicas
        return int(roles.current.deployment["metadata"]["annotations"][ANNOTATION_ASKED])

    def status_was_written(self, made: Plan, actions: int | None) -> bool:
        return actions is None or made.status_first

    def check_steps(self, made: Plan) -> None:
        status = self.cluster.service.get("status", {})
        before = status.get("transition")
        after = made.status.transition
        if after is not None:
            assert after.id >= self.highest_id
            if before is not None and after.id != before["id"]:
                self.check_given_up(before, made)
            if made.status_first:
                self.highest_id = after.id
        for action in made.apply:
            self.check_engine(action, made)

    def check_given_up(self, before: dict[str, Any], made: Plan) -> None:
        """A change that another takes over from in mid-way is no longer coming: it keeps, at most, pods
        that serve and that the variant which stays has lost."""
        if before["step"] != "Starting":
            return
        kept = [
            one.object["spec"]["replicas"]
            for one in made.apply
            if one.object["metadata"]["labels"].get("paceline.dev/variant") == before["to"]
        ]
        assert all(count <= len(self.cluster.serving(before["to"])) for count in kept), "one change at a time"

    def check_engine(self, action: Apply, made: Plan) -> None:
        labels = action.object["metadata"].get("labels", {})
        if "paceline.dev/variant" not in labels:
            return
        name = labels["paceline.dev/variant"]
        old = self.cluster.variants().get(name, 0)
        new = action.object["spec"].get("replicas", old)
        alive = {one for one, count in self.cluster.variants().items() if count and one != name}
        if new < old:
            assert action.status_first
            assert action.resource_version is not None
        if old == 0 and new > 0 and alive:
            assert action.status_first or self.transition_names(name), (
                "a change is written down before it begins"
            )
            generation = self.cluster.service["metadata"]["generation"]
            refused = self.cluster.service.get("status", {}).get("refused")
            assert refused is None or refused["generation"] != generation, "not tried again for this spec"

    def transition_names(self, variant: str) -> bool:
        transition = self.cluster.service.get("status", {}).get("transition")
        return transition is not None and variant in (transition.get("to"), transition.get("from"))

    # what always holds

    @invariant()
    def no_more_than_two_sides(self) -> None:
        """What stays, what comes, and at most one that was to leave and is needed."""
        alive = [count for count in self.cluster.variants().values() if count]
        assert len(alive) <= 4

    def teardown(self) -> None:
        """Left in peace, every service ends on what was asked for, or on what it had if that was refused."""
        cluster = self.cluster
        cluster.router_holds_still = False
        for node in cluster.nodes:
            cluster.cordon(node, on=False)
        cluster.end_drains()
        cluster.run_controllers()
        for name in cluster.live():
            cluster.pods[name]["status"].pop("containerStatuses", None)
            cluster.make_ready(name)
        cluster.settle()
        refused = cluster.status.refused
        asked = cluster.service["spec"]["scaling"]
        variants = cluster.variants()
        if refused is not None and refused.reason == "Refused" and not variants:
            return
        ((name, replicas),) = variants.items()
        if refused is None:
            assert replicas == asked["replicas"]
            assert name.startswith(f"tp{asked['tensorParallelSize']}-")
        else:
            assert replicas == int(cluster.engine(name)["metadata"]["annotations"][ANNOTATION_ASKED])
        assert len(cluster.serving(name)) == replicas
        assert not cluster.plan().status_first


TestEngines = Engines.TestCase
TestEngines.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    # Shrinking replays whole clusters for minutes; forty steps can be read as they are.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
