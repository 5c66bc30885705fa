"""Verify what is done about a straggler: one pod at a time, by its UID, with the status first, and only while nothing
else is under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.fleet import Delete, Plan
from paceline.fleet.actions import Event
from paceline.fleet.advice import ADVICE_VALID_S, Advice
from paceline.fleet.replacement import EVERY_S
from paceline.fleet.straggler import Straggler
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster
from tests.unit.fleet.test_autoscaling import MEASURED, advise, shape

EXPECTED = (
    "Pod {} takes 101.0 ms a token, 5.0 times the 20.0 ms of its peers (median): it is drained, and another takes its "
    "place."
)


def three(**spec: Any) -> Cluster:
    """Three Ready replicas, by hand."""
    made = Cluster(merged(merged(EMULATED, {"scaling": {"replicas": 3}}), spec))
    made.settle()
    return made


@pytest.fixture
def cluster() -> Cluster:
    return three()


def found(cluster: Cluster, pod: str | None = None, **changes: Any) -> str:
    """The decision loop has found this pod slow."""
    pod = pod or cluster.serving()[1]
    uid = cluster.pods[pod]["metadata"]["uid"]
    advice = Advice(
        made_at_s=cluster.now_s,
        generation=cluster.service["metadata"]["generation"],
        metrics=MEASURED,
        straggler=Straggler(pod=pod, uid=uid, mean_s=0.101, peers_s=0.02),
    )
    cluster.advice = replace(advice, **changes)
    return pod


def deleted(made: Plan) -> list[str]:
    return [one.name for one in made.delete if one.kind == "Pod"]


def said(made: Plan) -> list[Event]:
    return [one for one in made.events if one.reason.startswith("Straggler")]


def test_the_pod_is_deleted_by_its_uid_and_another_takes_its_place(cluster: Cluster) -> None:
    pod, before = found(cluster), set(cluster.live())
    made = cluster.plan()
    uid = cluster.pods[pod]["metadata"]["uid"]
    assert made.delete == (Delete(api_version="v1", kind="Pod", name=pod, uid=uid, status_first=True),)
    assert said(made) == [Event(type="Warning", reason="StragglerReplaced", message=EXPECTED.format(pod))]
    cluster.carry_out(made)
    cluster.run_controllers()
    assert before - set(cluster.live()) == {pod}
    assert len(cluster.live()) == 3
    cluster.settle()
    assert list(cluster.variants().values()) == [3]
    last = cluster.status.last_straggler
    assert last is not None
    assert (last.pod, last.action, last.message) == (pod, "Replaced", EXPECTED.format(pod))


@pytest.mark.parametrize("mode", ["Manual", "Auto"])
def test_auto_and_manual_replace(mode: str) -> None:
    cluster = three(scaling={"mode": mode, "replicaBounds": {"min": 1, "max": 6}})
    pod = found(cluster)
    assert deleted(cluster.reconcile()) == [pod]


def test_an_operator_that_dies_before_the_delete_is_continued(cluster: Cluster) -> None:
    pod = found(cluster)
    cluster.carry_out(cluster.plan(), actions=0)
    cluster.advice = None
    assert deleted(cluster.plan()) == [], "the successor has yet to see for itself"
    cluster.now_s += 90
    found(cluster, pod)
    made = cluster.plan()
    assert deleted(made) == [pod]
    assert said(made) == [], "that was said"


# when it is not done


def another_starts(cluster: Cluster) -> None:
    cluster.make_ready(cluster.serving()[0], ready=False)


def another_leaves(cluster: Cluster) -> None:
    cluster.delete_pod(cluster.serving()[0])
    cluster.run_controllers()
    for pod in cluster.live():
        cluster.make_ready(pod)


def a_pod_is_missing(cluster: Cluster) -> None:
    del cluster.pods[cluster.serving()[0]]


def a_router_starts(cluster: Cluster) -> None:
    router = next(name for name in cluster.pods if name not in cluster.engine_pods())
    cluster.make_ready(router, ready=False)


def the_router_rolls(cluster: Cluster) -> None:
    cluster.router_holds_still = True
    cluster.run_controllers()


def a_node_leaves(cluster: Cluster) -> None:
    cluster.cordon(cluster.pods[cluster.serving()[0]]["spec"]["nodeName"])


def it_is_paused(cluster: Cluster) -> None:
    cluster.edit({"paused": True})


def more_are_asked_for(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"replicas": 4}})


def fewer_are_asked_for(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"replicas": 2}})


def another_size_is_asked_for(cluster: Cluster) -> None:
    cluster.edit({"scaling": {"tensorParallelSize": 3}})


def a_change_is_under_way(cluster: Cluster) -> None:
    another_size_is_asked_for(cluster)
    cluster.reconcile()
    cluster.run_controllers()
    for pod in cluster.live():
        cluster.make_ready(pod)


@pytest.mark.parametrize(
    "happens",
    [
        another_starts,
        another_leaves,
        a_pod_is_missing,
        a_router_starts,
        the_router_rolls,
        a_node_leaves,
        it_is_paused,
        more_are_asked_for,
        fewer_are_asked_for,
        another_size_is_asked_for,
        a_change_is_under_way,
    ],
)
def test_nothing_is_done_or_said_while_something_else_is_under_way(
    cluster: Cluster, happens: Callable[[Cluster], None]
) -> None:
    pod = cluster.serving()[1]
    happens(cluster)
    found(cluster, pod)
    made = cluster.reconcile()
    assert deleted(made) == []
    assert said(made) == []
    assert cluster.status.last_straggler is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"made_at_s": 0.0}, id="too old"),
        pytest.param({"generation": 0}, id="made for another spec"),
        pytest.param({"straggler": None}, id="nobody is slow"),
        pytest.param(
            {"straggler": Straggler(pod="chat-gone", uid="gone", mean_s=0.1, peers_s=0.02)}, id="it is gone"
        ),
    ],
)
def test_an_advice_that_may_not_be_followed_takes_no_pod(cluster: Cluster, changes: dict[str, Any]) -> None:
    found(cluster, **changes)
    assert deleted(cluster.reconcile()) == []


def test_the_next_one_waits_for_ten_minutes_by_the_clock_of_the_status(cluster: Cluster) -> None:
    found(cluster)
    cluster.reconcile()
    replaced_s = cluster.now_s
    cluster.run_controllers()
    cluster.settle()
    cluster.now_s = replaced_s + EVERY_S - 1
    found(cluster)
    assert deleted(cluster.reconcile()) == []
    cluster.now_s += 1
    pod = found(cluster)
    assert deleted(cluster.reconcile()) == [pod]


# where it is only said


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({"scaling": {"stragglers": "Keep"}}, "spec.scaling.stragglers is Keep", id="Keep"),
        pytest.param({"scaling": {"mode": "Advisory"}}, "spec.scaling.mode Advisory", id="Advisory"),
        pytest.param(
            {"router": {"policy": "CacheAware"}},
            "spec.router.policy CacheAware may have sent",
            id="CacheAware",
        ),
    ],
)
def test_a_straggler_that_is_kept_is_named_once(spec: dict[str, Any], why: str) -> None:
    cluster = three(**spec)
    pod = found(cluster)
    made = cluster.reconcile()
    assert made.delete == ()
    (event,) = said(made)
    assert (event.type, event.reason) == ("Warning", "StragglerFound")
    assert f"it is kept, since {why}" in event.message
    cluster.now_s += 2 * EVERY_S
    found(cluster, pod)
    assert said(cluster.reconcile()) == []
    last = cluster.status.last_straggler
    assert last is not None
    assert (last.pod, last.action) == (pod, "Kept")


def test_one_that_was_kept_is_replaced_as_soon_as_the_spec_says_so() -> None:
    cluster = three(scaling={"stragglers": "Keep"})
    pod = found(cluster)
    cluster.reconcile()
    cluster.edit({"scaling": {"stragglers": "Replace"}})
    found(cluster, pod)
    made = cluster.reconcile()
    assert deleted(made) == [pod]
    assert [one.reason for one in said(made)] == ["StragglerReplaced"]


# in any order


EVENTS = st.lists(
    st.sampled_from(
        ("slow", "slow", "plan", "plan", "dies", "controllers", "ready", "drained", "minutes", "load")
    ),
    min_size=5,
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.integers(0, 10))
def test_never_two_at_once_and_never_two_within_the_time_between(events: list[str], which: int) -> None:
    cluster = three(scaling={"mode": "Auto", "replicaBounds": {"min": 1, "max": 6}})
    taken = dict[str, float]()
    for event in events:
        for pod in _taken(cluster, event, which=which):
            others = set(cluster.engine_pods()) - {pod}
            assert others <= set(cluster.serving()), "another one starts or leaves"
            assert all(cluster.now_s - at_s >= EVERY_S for other, at_s in taken.items() if other != pod)
            taken[pod] = cluster.now_s


def _taken(cluster: Cluster, event: str, *, which: int) -> Iterator[str]:
    """One thing happens; the pods that it makes the operator take."""
    serving = cluster.serving()
    if event == "slow" and serving:
        found(cluster, serving[which % len(serving)])
    elif event == "load":
        asked = cluster.status.shape
        if asked is not None and asked.desired is not None:
            advise(cluster, shape(2 + which % 4))
    elif event in ("plan", "dies"):
        made = cluster.plan()
        cluster.carry_out(made, actions=0 if event == "dies" else None)
        if event == "plan":
            yield from deleted(made)
    elif event == "controllers":
        cluster.run_controllers()
    elif event == "ready":
        for pod in cluster.live():
            cluster.make_ready(pod)
    elif event == "drained":
        cluster.end_drains()
    elif event == "minutes":
        cluster.now_s += EVERY_S / 3
    assert ADVICE_VALID_S < EVERY_S / 3
