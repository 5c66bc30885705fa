"""Verify what engines that come are held against: the answers of those that serve, and which of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paceline_core import Canary
from tests.unit.fleet.services import EMULATED, merged
from tests.unit.fleet.simulated_cluster import Cluster

FIRST = Canary(of="a model", log_probabilities=(-1.0, -2.0))
CLOSE = Canary(of="a model", log_probabilities=(-1.01, -2.02))
OTHER = Canary(of="another model", log_probabilities=(-1.0, -2.0))


def told(cluster: Cluster, pod: str, canary: Canary | None) -> None:
    cluster.pods[pod]["info"] = {"canary": None if canary is None else canary.to_json()}


def kept(cluster: Cluster) -> Canary | None:
    """What the next look applies: a key that is left out is removed by the API server."""
    (config,) = (one for one in cluster.reconcile().apply if one.kind == "ConfigMap")
    data: Any = config.object["data"]
    assert json.loads(data["targets.json"])
    return Canary.parse(data["canary.json"]) if "canary.json" in data else None


@pytest.fixture
def two() -> Cluster:
    cluster = Cluster(merged(EMULATED, {"scaling": {"replicas": 2}}))
    cluster.settle()
    return cluster


def test_nothing_is_compared_before_a_pod_has_told(two: Cluster) -> None:
    assert kept(two) is None


def test_the_first_that_was_told_stays_the_reference(two: Cluster) -> None:
    one, other = sorted(two.serving())
    told(two, other, FIRST)
    assert kept(two) == FIRST
    told(two, one, CLOSE)
    assert kept(two) == FIRST
    told(two, other, CLOSE)
    assert kept(two) == FIRST


def test_a_reference_outlives_the_pods_that_told_it(two: Cluster) -> None:
    for pod in two.serving():
        told(two, pod, FIRST)
    assert kept(two) == FIRST
    for pod in two.serving():
        told(two, pod, None)
    assert kept(two) == FIRST


def test_another_model_has_another_reference(two: Cluster) -> None:
    for pod in two.serving():
        told(two, pod, FIRST)
    assert kept(two) == FIRST
    for pod in two.serving():
        told(two, pod, OTHER)
    assert kept(two) == OTHER


def test_a_pod_that_does_not_serve_is_not_believed(two: Cluster) -> None:
    one, _ = sorted(two.serving())
    told(two, one, FIRST)
    two.make_ready(one, ready=False)
    assert kept(two) is None


def test_disabled_nothing_is_compared(two: Cluster) -> None:
    for pod in two.serving():
        told(two, pod, FIRST)
    assert kept(two) == FIRST
    two.edit({"transition": {"canary": {"mode": "Disabled"}}})
    assert kept(two) is None
