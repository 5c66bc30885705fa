"""What the watches lose, a list finds: a deletion that nobody told of, and a kind that the API server learnt."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from paceline.controller.api_client import ApiClient
from paceline.controller.cluster_cache import ClusterCache
from paceline.controller.connection import Connection
from paceline.controller.fence import Fence
from paceline.controller.instruments import Instruments
from paceline.controller.resources import CHILD_OF_KIND, NODE, POD_MONITOR
from paceline.controller.sweep import Sweep
from paceline.controller.work_queue import ServiceKey
from tests.integration.controller.cluster import LABEL, Cluster, pod_monitors, service

pytestmark = pytest.mark.apiserver

CONFIG_MAP = CHILD_OF_KIND["ConfigMap"]


class Heard:
    """A cache with a sweep and no watch, and which services it wanted to be looked at."""

    def __init__(self, cluster: Cluster, client: ApiClient) -> None:
        self.cache = ClusterCache()
        self.wanted: list[tuple[ServiceKey, bool]] = []
        self.sweep = Sweep(
            client,
            cache=self.cache,
            wanted=lambda key, urgent: self.wanted.append((key, urgent)),
            namespaces=[cluster.namespace],
        )


@pytest.fixture
async def heard(cluster: Cluster) -> AsyncIterator[Heard]:
    connection = await Connection.load(kubeconfig=cluster.plane.kubeconfig)
    client = ApiClient(connection, fence=Fence(), instruments=Instruments())
    yield Heard(cluster, client)
    await client.close()


def _config_map(cluster: Cluster, name: str) -> None:
    cluster.create("ConfigMap", {"metadata": {"name": name, "labels": {LABEL: "chat"}}, "data": {"a": "1"}})


async def test_the_cache_is_complete_before_anything_is_planned(cluster: Cluster, heard: Heard) -> None:
    cluster.create("InferenceService", service("chat"))
    _config_map(cluster, "chat-slo")
    await heard.sweep.prime()
    key = ServiceKey(cluster.namespace, "chat")
    assert heard.cache.service(key) is not None
    assert set(heard.cache.children(key)) == {("ConfigMap", "chat-slo")}
    assert heard.wanted == [(key, False)]


async def test_a_deletion_and_a_change_that_no_watch_told_of_are_found(
    cluster: Cluster, heard: Heard
) -> None:
    for name in ("lost", "changed", "same"):
        _config_map(cluster, name)
    await heard.sweep.prime()
    key = ServiceKey(cluster.namespace, "chat")
    same = heard.cache.children(key)["ConfigMap", "same"]
    cluster.delete("ConfigMap", "lost")
    cluster.patch("ConfigMap", "changed", {"data": {"a": "2"}})
    await heard.sweep.sweep(CONFIG_MAP)
    children = heard.cache.children(key)
    assert set(children) == {("ConfigMap", "changed"), ("ConfigMap", "same")}
    assert children["ConfigMap", "changed"]["data"] == {"a": "2"}
    assert children["ConfigMap", "same"] is same
    assert heard.wanted == [(key, True), (key, False)]
    heard.wanted.clear()
    await heard.sweep.sweep(CONFIG_MAP)
    assert heard.wanted == []


async def test_a_kind_that_comes_and_goes_is_noticed(cluster: Cluster, heard: Heard) -> None:
    await heard.sweep.prime()
    assert POD_MONITOR not in heard.sweep.kinds
    assert NODE in heard.sweep.kinds
    with pod_monitors(cluster):
        await _until(heard, known=True)
        assert POD_MONITOR in heard.sweep.kinds
        assert heard.sweep.kinds_changed.is_set()
    await _until(heard, known=False)


async def _until(heard: Heard, *, known: bool) -> None:
    """The API server serves a new kind, or stops to, after a moment."""
    for _ in range(300):
        await heard.sweep.sweep(POD_MONITOR)
        if heard.sweep.pod_monitors_known == known:
            return
    raise AssertionError(f"PodMonitor known: {not known}")
