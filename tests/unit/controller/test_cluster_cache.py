"""The cache: newest first whatever the order of arrival, nothing deleted comes back, nothing lost stays."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.resources import CHILD_OF_KIND, INFERENCE_SERVICE, NODE, POD, SERVICE_LABEL
from paceline.controller.work_queue import ServiceKey

DEPLOYMENT = CHILD_OF_KIND["Deployment"]
KEY = ServiceKey("ns", "chat")
CHILD = ("Deployment", "chat-router")


def _child(version: int, *, uid: str = "u1", service: str | None = "chat") -> dict[str, Any]:
    labels = {SERVICE_LABEL: service} if service else {}
    meta = {
        "namespace": "ns",
        "name": "chat-router",
        "uid": uid,
        "resourceVersion": str(version),
        "labels": labels,
    }
    return {"kind": "Deployment", "metadata": meta, "spec": {"version": version}}


def test_an_older_echo_is_no_news_and_changes_nothing() -> None:
    cache = ClusterCache()
    assert cache.put(DEPLOYMENT, _child(5))
    assert not cache.put(DEPLOYMENT, _child(5))
    assert not cache.put(DEPLOYMENT, _child(4))
    assert cache.children(KEY)[CHILD]["spec"]["version"] == 5


def test_a_late_answer_does_not_bring_a_deleted_child_back() -> None:
    cache = ClusterCache()
    cache.put(DEPLOYMENT, _child(5))
    assert cache.remove_raw(DEPLOYMENT, _child(7)) == KEY
    assert not cache.put(DEPLOYMENT, _child(6))
    assert cache.children(KEY) == {}


def test_what_the_api_server_does_not_have_is_gone_until_it_comes_again() -> None:
    cache = ClusterCache()
    cache.put(DEPLOYMENT, _child(5))
    cache.is_gone(DEPLOYMENT, KEY, "chat-router")
    assert cache.children(KEY) == {}
    assert not cache.put(DEPLOYMENT, _child(5))
    assert cache.put(DEPLOYMENT, _child(8, uid="u2"))


def test_the_deletion_of_a_predecessor_does_not_remove_its_successor() -> None:
    cache = ClusterCache()
    cache.put(DEPLOYMENT, _child(5))
    cache.put(DEPLOYMENT, _child(9, uid="u2"))
    assert cache.remove_raw(DEPLOYMENT, _child(8, uid="u1")) is None
    assert cache.children(KEY)[CHILD]["metadata"]["uid"] == "u2"


def test_a_child_that_lost_our_label_and_got_it_back_is_known_again() -> None:
    cache = ClusterCache()
    cache.put(DEPLOYMENT, _child(5))
    # A label-selected watch tells of the loss as a deletion of the same uid.
    assert cache.remove_raw(DEPLOYMENT, _child(6, service=None)) == KEY
    assert cache.put(DEPLOYMENT, _child(7))
    assert CHILD in cache.children(KEY)


def test_a_child_that_changes_its_service_leaves_the_old_one() -> None:
    cache = ClusterCache()
    cache.put(DEPLOYMENT, _child(5))
    assert cache.put(DEPLOYMENT, _child(6, service="other"))
    assert cache.children(KEY) == {}
    assert CHILD in cache.children(ServiceKey("ns", "other"))


def test_a_list_shows_what_the_watch_lost_and_only_that() -> None:
    cache = ClusterCache()
    cache.put(DEPLOYMENT, _child(5))
    young = _child(20)
    young["metadata"] |= {"name": "young", "uid": "u9"}
    cache.put(DEPLOYMENT, young)
    assert cache.missing_from(DEPLOYMENT, [], namespace=None, version=10) == [(("ns", "chat-router"), "u1")]
    assert cache.missing_from(DEPLOYMENT, [], namespace="elsewhere", version=10) == []
    assert cache.missing_from(DEPLOYMENT, [_child(5)], namespace=None, version=10) == []
    assert cache.older_than(DEPLOYMENT, [_child(5)]) == []
    assert cache.older_than(DEPLOYMENT, [_child(6)]) == [("ns", "chat-router")]


def test_a_heartbeat_of_a_node_or_a_pod_is_no_news() -> None:
    cache = ClusterCache()

    def node(version: int, *, cordoned: bool = False) -> dict[str, Any]:
        status = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": str(version)}]}
        meta = {"name": "n", "uid": "n", "resourceVersion": str(version)}
        return {"metadata": meta, "spec": {"unschedulable": cordoned}, "status": status}

    assert cache.put(NODE, node(1))
    assert not cache.put(NODE, node(2))
    assert cache.put(NODE, node(3, cordoned=True))
    assert [one.cordoned for one in cache.nodes()] == [True]

    def pod(version: int, ready: str) -> dict[str, Any]:
        meta = {
            "namespace": "ns", "name": "p", "uid": "p", "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {SERVICE_LABEL: "chat"},
        }  # fmt: skip
        return {"metadata": meta, "status": {"conditions": [{"type": "Ready", "status": ready}]}}

    assert cache.put(POD, pod(1, "False"))
    assert not cache.put(POD, pod(2, "False"))
    assert cache.put(POD, pod(3, "True"))
    assert [one.ready for one in cache.pods(KEY)] == [True]


Steps = st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.integers(0, 2)), max_size=12)


@settings(deadline=None)
@given(history=Steps, data=st.data())
def test_any_order_of_arrival_ends_in_the_same_cache(
    history: list[tuple[str, int]], data: st.DataObject
) -> None:
    """A write's answer and the watch about it race: whatever arrives first, the newest of all stands."""
    events: list[tuple[str, dict[str, Any]]] = []
    alive: dict[int, str] = {}
    for version, (step, slot) in enumerate(history, start=1):
        uid = alive.get(slot)
        if step == "put":
            uid = uid or f"u{version}"
            alive[slot] = uid
        elif uid is None:
            continue
        else:
            del alive[slot]
        raw = _child(version, uid=uid)
        raw["metadata"]["name"] = f"child-{slot}"
        events.append((step, raw))
    cache = ClusterCache()
    for step, raw in data.draw(st.permutations(events)):
        if step == "put":
            cache.put(DEPLOYMENT, raw)
        else:
            cache.remove_raw(DEPLOYMENT, raw)
    held = {name: raw["metadata"]["uid"] for (_, name), raw in cache.children(KEY).items()}
    assert held == {f"child-{slot}": uid for slot, uid in alive.items()}


def test_services_are_counted_by_their_ready_condition() -> None:
    cache = ClusterCache()
    for number, conditions in enumerate(([{"type": "Ready", "status": "True"}], [], None)):
        meta = {"namespace": "ns", "name": f"s{number}", "uid": f"s{number}", "resourceVersion": "1"}
        cache.put(
            INFERENCE_SERVICE,
            {"metadata": meta, "status": {"conditions": conditions} if conditions else None},
        )
    assert cache.count_by_ready() == {"True": 1, "Unknown": 2}
