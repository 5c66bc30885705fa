"""A pod five times slower than its peers, on a real API server, with a real operator process and a real Prometheus: the
pod is replaced, or named where it is to be kept. Pods are not run; their metrics pages are the test's (`load_page`)."""

from __future__ import annotations

import time

import pytest

from paceline.fleet.straggler import SUSTAINED_S
from tests.integration.controller.cluster import Cluster, Raw, eventually, pods_of
from tests.integration.controller.kubelet import kubelet
from tests.integration.controller.load_page import LoadPage, load_page
from tests.integration.controller.operators import Operators
from tests.integration.controller.test_auto import CALM_S, WITHIN_S, chat, measured, start, status
from tests.integration.metrics.prometheus_server import PrometheusServer

pytestmark = pytest.mark.apiserver

RATE_PER_S = 6.0
"""What three replicas carry."""


def three(mode: str, *, node: str, stragglers: str) -> Raw:
    bounds = {"min": 3, "max": 3}
    return chat(mode, node=node, replicas=3, replicaBounds=bounds, stragglers=stragglers)


def engine_pods(cluster: Cluster) -> dict[str, str]:
    """Name -> uid of those that are not on their way out."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in pods_of(cluster, "chat")
        if pod["spec"]["containers"][0]["name"] == "engine" and "deletionTimestamp" not in pod["metadata"]
    }


def said(cluster: Cluster, reason: str) -> list[Raw]:
    return [one for one in cluster.events("chat") if one["reason"] == reason]


def one_slow(cluster: Cluster, load: LoadPage) -> str:
    """Three pods serve, and one of them is five times slower from now on."""
    eventually(load.engines, within_s=WITHIN_S, holds=lambda pods: len(pods) == 3)
    measured(cluster, load, rate_per_s=RATE_PER_S)
    slow = sorted(load.engines())[0]
    load.slow[slow] = 5.0
    return slow


def test_auto_replaces_the_pod_and_says_why(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str
) -> None:
    operator = start(operators, prometheus)
    cluster.create("InferenceService", three("Auto", node=node, stragglers="Replace"))
    with kubelet(cluster), load_page(cluster, prometheus, service="chat") as load:
        slow = one_slow(cluster, load)
        before = engine_pods(cluster)
        since_s = time.monotonic()
        eventually(lambda: slow not in engine_pods(cluster), within_s=WITHIN_S)
        assert time.monotonic() - since_s >= SUSTAINED_S
        eventually(load.engines, within_s=WITHIN_S, holds=lambda pods: len(pods) == 3 and slow not in pods)
        after = engine_pods(cluster)
        assert set(before) - set(after) == {slow}, "nothing else was touched"
        (event,) = eventually(lambda: said(cluster, "StragglerReplaced"), within_s=WITHIN_S)
        assert event["type"] == "Warning"
        assert event["message"].startswith(f"Pod {slow} takes ")
        assert "20.0 ms of its peers" in event["message"]
        last = status(cluster)["lastStraggler"]
        assert (last["pod"], last["action"], last["message"]) == (slow, "Replaced", event["message"])
        page = operator.scrape()
        assert page['paceline_operator_writes_total{kind="Pod",verb="delete"}'] == 1
        labels = f'namespace="{cluster.namespace}",service="chat"'
        assert page[f"paceline_decision_stragglers_total{{{labels}}}"] == 1


def test_what_is_to_be_kept_is_named_and_what_is_young_is_left_alone_after_it(
    cluster: Cluster, operators: Operators, prometheus: PrometheusServer, node: str
) -> None:
    start(operators, prometheus)
    cluster.create("InferenceService", three("Manual", node=node, stragglers="Keep"))
    with kubelet(cluster), load_page(cluster, prometheus, service="chat") as load:
        slow = one_slow(cluster, load)
        before = engine_pods(cluster)
        (event,) = eventually(lambda: said(cluster, "StragglerFound"), within_s=WITHIN_S)
        assert event["message"].startswith(f"Pod {slow} takes ")
        assert event["message"].endswith("it is kept, since spec.scaling.stragglers is Keep.")
        time.sleep(CALM_S)
        assert engine_pods(cluster) == before
        assert len(said(cluster, "StragglerFound")) == 1
        # In Manual it is replaced too, at once, when the spec comes to say so.
        cluster.patch("InferenceService", "chat", {"spec": {"scaling": {"stragglers": "Replace"}}})
        eventually(lambda: slow not in engine_pods(cluster), within_s=WITHIN_S)
        eventually(load.engines, within_s=WITHIN_S, holds=lambda pods: len(pods) == 3 and slow not in pods)
        # The next one is slow as well: the fault may not be the pods'.
        load.slow[sorted(load.engines())[0]] = 5.0
        replaced = engine_pods(cluster)
        time.sleep(SUSTAINED_S + 20)
        assert engine_pods(cluster) == replaced
