"""Verify the engines' state machine under any order of events: people, nodes, pods, crashes of the operator.

Counted is what a plan that was carried out, or cut short by a crash, does to the pods that serve. Pods that
others take are not held against it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from paceline.fleet import Apply, Plan
from paceline.fleet.names import ANNOTATION_ASKED
from paceline.fleet.roles import Roles, assign_roles, is_active
from paceline.fleet.variant import observed_variants
from tests.unit.fleet.services import EMULATED
from tests.unit.fleet.simulated_cluster import Cluster

WHICH = st.integers(0, 11)
"""Of the things that are there, counted round: so an order that was found can be written down and replayed."""

REFUSED = '{"verdict":"Refused","field":"spec.model.uri","message":"no"}'


class Engines(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(EMULATED)
        self.highest_id = 0

    @initialize(
        at=st.sampled_from(("nothing", "serving", "changing", "changing", "switched", "rolling-back")),
        lost=st.integers(0, 2),
        came=st.integers(0, 2),
    )
    def begin(self, at: str, lost: int, came: int) -> None:
        """A place on the way, with some of the old pods lost and some of the new ones there."""
        cluster = self.cluster
        if at == "nothing":
            return
        cluster.settle()
        old = cluster.serving()
        if at != "serving":
            cluster.edit({"scaling": {"tensorParallelSize": 3}})
            cluster.reconcile()
            cluster.run_controllers()
        new = [pod for pod in cluster.live() if pod not in old]
        for pod in new if at == "switched" else new[:came]:
            cluster.make_ready(pod)
        if at == "switched":
            cluster.now_s += 5
            self.carry_out(actions=0)
            for pod in new[came:]:
                cluster.make_ready(pod, ready=False)
        for pod in old[:lost]:
            cluster.make_ready(pod, ready=False)
        if at == "rolling-back":
            cluster.now_s += 1000
            self.carry_out(actions=0)

    # A third of the steps are the operator's: what it never sees cannot lead it astray.

    @rule(
        patch=st.one_of(
            st.builds(lambda n: {"scaling": {"replicas": n}}, st.integers(1, 4)),
            st.builds(lambda n: {"scaling": {"tensorParallelSize": n}}, st.sampled_from((1, 3, 9))),
            st.builds(lambda name: {"runtime": {"image": name}}, st.sampled_from(("", "b:1", "c:1"))),
        )
    )
    def somebody_edits_the_spec(self, patch: dict[str, Any]) -> None:
        self.cluster.edit(patch)

    @rule(what=st.sampled_from(("delete", "evict", "cordon", "uncordon", "delete-deployment")), which=WHICH)
    def somebody_takes_something_away(self, what: str, which: int) -> None:
        cluster = self.cluster
        if what == "delete-deployment":
            if variants := sorted(cluster.variants()):
                cluster.delete_child("Deployment", f"chat-{variants[which % len(variants)]}")
        elif what in ("cordon", "uncordon"):
            cluster.cordon(("node-a", "node-b")[which % 2], on=what == "cordon")
        elif pods := cluster.live():
            pod = pods[which % len(pods)]
            cluster.delete_pod(pod) if what == "delete" else cluster.evict(pod)

    @rule()
    def all_pods_become_ready(self) -> None:
        for pod in self.cluster.live():
            self.cluster.make_ready(pod)

    @rule(what=st.sampled_from(("ready", "fails", "no-node", "refused")), which=WHICH)
    def a_pod_moves(self, what: str, which: int) -> None:
        cluster = self.cluster
        serving = cluster.serving()
        pods = serving if what == "fails" else [one for one in cluster.live() if one not in serving]
        if not pods:
            return
        pod = pods[which % len(pods)]
        match what:
            case "no-node":
                cluster.make_unschedulable(pod)
            case "refused":
                cluster.say_verdict(pod, REFUSED)
            case _:
                cluster.make_ready(pod, ready=what == "ready")

    @rule(drains_end=st.booleans(), router_rolls=st.sampled_from((False, False, True)))
    def the_cluster_moves(self, drains_end: bool, router_rolls: bool) -> None:
        if drains_end:
            self.cluster.end_drains()
        self.cluster.router_holds_still = router_rolls
        self.cluster.run_controllers()

    @rule(seconds=st.sampled_from((5, 130, 1000)))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now_s += seconds
        self.carry_out(actions=None)

    # the operator

    @rule()
    def reconcile(self) -> None:
        self.carry_out(actions=None)

    @rule()
    def reconcile_twice(self) -> None:
        self.carry_out(actions=None)
        self.cluster.end_drains()
        self.carry_out(actions=None)

    @rule(actions=st.integers(0, 4))
    def crash_in_mid_reconcile(self, actions: int) -> None:
        """Four: the two things that an engine needs, and two Deployments."""
        self.carry_out(actions=actions)

    @precondition(lambda self: "status" in self.cluster.service)
    @rule(really=st.sampled_from((False, False, False, True)))
    def the_status_is_lost(self, really: bool) -> None:
        if really:
            del self.cluster.service["status"]
            self.highest_id = 0

    def carry_out(self, *, actions: int | None) -> None:
        cluster = self.cluster
        before = self.staying()
        owed = self.owed()
        made = cluster.plan()
        assert made == cluster.plan(), "a plan is a function of what is observed"
        self.check_steps(made)
        cluster.carry_out(made, actions=actions)
        if (now_owed := self.owed()) is not None and self.status_was_written(made, actions):
            owed = min(owed, now_owed) if owed is not None else now_owed
        after = self.staying()
        if owed is not None:
            assert after >= min(before, owed), f"{before} served, {owed} are owed, {after} are left"
        if actions is None:
            self.check_leaving()

    def staying(self) -> int:
        """Serving pods that are left once the controllers have done what they are told: the others go
        first."""
        return sum(min(len(self.cluster.serving(name)), n) for name, n in self.cluster.variants().items())

    def owed(self) -> int | None:
        """What the variant that stays must have; None before there is one."""
        scaling = self.cluster.observe().service.spec.scaling
        current = self.roles().current
        if current is None:
            return None
        if current.tensor_parallel_size == scaling.tensor_parallel_size:
            return scaling.replicas
        return int(current.deployment["metadata"]["annotations"][ANNOTATION_ASKED])

    def roles(self) -> Roles:
        observed = self.cluster.observe()
        return assign_roles(
            observed_variants(observed),
            transition=observed.status.transition if observed.status else None,
            target="",
            asked_replicas=observed.service.spec.scaling.replicas,
        )

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
        that serve and that the variant which stays has lost. Where somebody has taken that one away, the
        pods that came are what stays, and the next change begins from them."""
        if before["step"] != "Starting" or not self.cluster.variants().get(before["from"]):
            return
        kept = [
            one.object["spec"]["replicas"]
            for one in made.apply
            if one.object["metadata"]["labels"].get("paceline.dev/variant") == before["to"]
        ]
        assert all(count <= len(self.cluster.serving(before["to"])) for count in kept), "one change at a time"

    def check_leaving(self) -> None:
        """Beside what stays and the one that comes there are only pods that serve, and that are lacking."""
        cluster, roles, owed = self.cluster, self.roles(), self.owed()
        if roles.current is None or owed is None or cluster.status.transition is None:
            return
        if cluster.router_holds_still or any(
            node["spec"].get("unschedulable") for node in cluster.nodes.values()
        ):
            return
        assert all(one.replicas <= len(one.serving) for one in roles.surplus), "only one comes"
        kept, lacking = sum(one.replicas for one in roles.surplus), owed - len(roles.current.serving)
        assert kept <= max(0, lacking), f"{lacking} are lacking, {kept} are kept: {cluster.variants()}"

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
        assert not is_active(cluster.status.transition), "a change comes to its end"


TestEngines = Engines.TestCase
TestEngines.settings = settings(
    max_examples=80,
    stateful_step_count=15,
    deadline=None,
    # Shrinking replays whole clusters for minutes; fifteen steps can be read as they are.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# Orders that were found, written down.


def test_pods_that_came_are_what_stays_when_somebody_deletes_the_others() -> None:
    """Also when the spec asks for the others again by now, and a node with one of those that came is cordoned."""
    state = Engines()
    state.begin(at="changing", lost=0, came=2)
    state.somebody_edits_the_spec(patch={"scaling": {"tensorParallelSize": 1}})
    state.somebody_takes_something_away(what="cordon", which=0)
    old, new = sorted(state.cluster.variants())
    state.somebody_takes_something_away(what="delete-deployment", which=0)
    state.a_pod_moves(what="fails", which=0)
    state.a_pod_moves(what="refused", which=0)
    state.a_pod_moves(what="ready", which=0)
    state.reconcile()
    assert state.cluster.variants() == {old: 2, new: 3}, "a stand-in for the pod on the cordoned node"
    transition = state.cluster.status.transition
    assert transition is not None
    assert (transition.from_variant, transition.to_variant, transition.step) == (new, old, "Starting")
    state.teardown()
    assert state.cluster.variants() == {old: 2}


def test_a_change_that_was_taken_back_ends_when_somebody_deletes_what_was_to_stay() -> None:
    """One of the new pods stands in for an old one; then its size is asked for again."""
    state = Engines()
    state.begin(at="changing", lost=1, came=1)
    state.somebody_edits_the_spec(patch={"scaling": {"tensorParallelSize": 1}})
    state.reconcile()
    _, new = sorted(state.cluster.variants())
    state.somebody_takes_something_away(what="delete-deployment", which=0)
    state.somebody_edits_the_spec(patch={"scaling": {"tensorParallelSize": 3}})
    state.reconcile()
    state.teardown()
    assert state.cluster.variants() == {new: 2}
